"""The script that ``skipviz app`` has Streamlit run."""

from skipviz.app.main import run

run()
