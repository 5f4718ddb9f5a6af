"""The skipviz page: ``streamlit run app.py``."""

from skipviz.app.main import run

run()
