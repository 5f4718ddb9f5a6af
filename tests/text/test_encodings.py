"""Texts in many languages, each with the encodings it was kept in before Unicode.

The first article of the Universal Declaration of Human Rights, and some shorter and more everyday
lines.
"""

from __future__ import annotations

import pytest

from skipviz.errors import TextError
from skipviz.text.documents import decode
from skipviz.text.encodings import guess_legacy

TEXTS = {
    "German": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft "
        "und Gewissen begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
        ("cp1252", "iso-8859-1", "iso-8859-15"),
    ),
    "German letter": (
        "Schöne Grüße aus Köln! Für 20 € gibt es hier „echtes“ Kölsch – und viel Spaß.",
        ("cp1252",),
    ),
    "French": (
        "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués "
        "de raison et de conscience et doivent agir les uns envers les autres dans un esprit de "
        "fraternité.",
        ("cp1252", "iso-8859-1", "iso-8859-15"),
    ),
    "Spanish": (
        "Todos los seres humanos nacen libres e iguales en dignidad y derechos. ¿Qué pasará "
        "mañana? ¡El niño está aquí! Según la razón y la conciencia deben obrar fraternalmente.",
        ("cp1252", "iso-8859-1"),
    ),
    "Portuguese": (
        "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. Dotados de "
        "razão e de consciência, devem agir uns para com os outros em espírito de fraternidade.",
        ("cp1252", "iso-8859-1"),
    ),
    "Swedish": (
        "Alla människor är födda fria och lika i värde och rättigheter. De har utrustats med "
        "förnuft och samvete och bör handla gentemot varandra i en anda av broderskap.",
        ("cp1252", "iso-8859-1"),
    ),
    "Polish": (
        "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni "
        "obdarzeni rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa.",
        ("cp1250", "iso-8859-2"),
    ),
    "Czech": (
        "Všichni lidé se rodí svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem "
        "a svědomím a mají spolu jednat v duchu bratrství. Příliš žluťoučký kůň úpěl ďábelské ódy.",
        ("cp1250", "iso-8859-2"),
    ),
    "Hungarian": (
        "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek, "
        "ésszel és lelkiismerettel bírván, egymással szemben testvéri szellemben kell hogy "
        "viseltessenek. Jó időt, sűrű erdőt!",
        ("cp1250", "iso-8859-2"),
    ),
    "Romanian": (
        "Toate fiinţele umane se nasc libere şi egale în demnitate şi în drepturi. Ele sunt "
        "înzestrate cu raţiune şi conştiinţă şi trebuie să se comporte unele faţă de altele în "
        "spiritul fraternităţii.",
        ("cp1250", "iso-8859-2"),
    ),
    "Russian": (
        "Все люди рождаются свободными и равными в своём достоинстве и правах. Они наделены "
        "разумом и совестью и должны поступать в отношении друг друга в духе братства.",
        ("cp1251", "koi8-r", "iso-8859-5", "cp866"),
    ),
    "Russian greeting": ("Привет, мир! Как дела?", ("cp1251", "koi8-r")),
    "Ukrainian": (
        "Всі люди народжуються вільними і рівними у своїй гідності та правах. Вони наділені "
        "розумом і совістю і повинні діяти у відношенні один до одного в дусі братерства. Їхній "
        "ґанок є тут.",
        ("cp1251", "koi8-u"),
    ),
    "Bulgarian": (
        "Всички хора се раждат свободни и равни по достойнство и права. Те са надарени с разум и "
        "съвест и следва да се отнасят помежду си в дух на братство.",
        ("cp1251",),
    ),
    "Greek": (
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. Είναι "
        "προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με "
        "πνεύμα αδελφοσύνης.",
        ("cp1253", "iso-8859-7"),
    ),
    "Turkish": (
        "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana "
        "sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler.",
        ("cp1254", "iso-8859-9"),
    ),
    "Hebrew": (
        "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם. כולם חוננו בתבונה ובמצפון, לפיכך "
        "חובה עליהם לנהוג איש ברעהו ברוח של אחווה.",
        ("cp1255", "iso-8859-8"),
    ),
    "Arabic": (
        "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا وعليهم أن يعامل "
        "بعضهم بعضا بروح الإخاء.",
        ("cp1256", "iso-8859-6"),
    ),
    "Estonian": (
        "Kõik inimesed sünnivad vabadena ja võrdsetena oma väärikuselt ja õigustelt. Neile on "
        "antud mõistus ja südametunnistus ning nende suhtumist üksteisesse peab kandma vendluse "
        "vaim. Šokolaad ja žurnaal.",
        ("cp1257",),
    ),
    "Lithuanian": (
        "Visi žmonės gimsta laisvi ir lygūs savo orumu ir teisėmis. Jiems suteiktas protas ir "
        "sąžinė ir jie turi elgtis vienas kito atžvilgiu kaip broliai.",
        ("cp1257", "iso-8859-13"),
    ),
    "Vietnamese": (  # tones are characters of their own in this encoding
        "Tâ\u0301t ca\u0309 mo\u0323i ngươ\u0300i sinh ra đê\u0300u "
        "đươ\u0323c tư\u0323 do va\u0300 "
        "bi\u0300nh đă\u0309ng vê\u0300 nhân phâ\u0309m va\u0300 quyê\u0300n lơ\u0323i.",
        ("cp1258",),
    ),
    "Thai": (
        "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ "
        "ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
        ("tis-620", "cp874"),
    ),
    "Japanese": (
        "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、"
        "理性と良心とを授けられており、互いに同胞の精神をもって行動しなければならない。",
        ("shift_jis", "euc-jp"),
    ),
    "Japanese title": ("日本語の本", ("shift_jis", "euc-jp")),
    "Chinese, simplified": (
        "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
        ("gb18030", "gb2312", "gbk"),
    ),
    "Chinese greeting": ("你好，世界", ("gb18030",)),
    "Chinese, traditional": (
        "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神相對待。",
        ("big5",),
    ),
    "Korean": (
        "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로 "
        "이성과 양심을 부여받았으며 서로 형제애의 정신으로 행동하여야 한다.",
        ("euc-kr", "cp949"),
    ),
    "English quotes": ("It’s “fine” at £5 – naïve…", ("cp1252",)),
    "a word": ("café", ("iso-8859-1", "cp1252")),
    "a measure": ("5 µm ± 3", ("iso-8859-1",)),
    "French capitals": ("LÀ-BAS, LES ÊTRES SONT À CÔTÉ", ("cp1252",)),
}
"""Text and encodings, by what it is."""

REFUSED = [("Russian", "cp866"), ("Chinese greeting", "gb18030")]
"""An encoding of DOS, and a text of five characters: chardet says that it cannot tell."""
KNOWN = [
    (name, encoding)
    for name, (_, encodings) in TEXTS.items()
    for encoding in encodings
    if (name, encoding) not in REFUSED
]


@pytest.mark.parametrize(("name", "encoding"), KNOWN)
def test_old_encodings_are_told(name: str, encoding: str) -> None:
    text, _ = TEXTS[name]
    assert decode(text.encode(encoding), source="a.txt")[0] == text


@pytest.mark.parametrize(("name", "encoding"), REFUSED)
def test_what_cannot_be_told_is_refused_and_not_guessed(name: str, encoding: str) -> None:
    with pytest.raises(TextError, match="in no encoding that can be told from its bytes"):
        decode(TEXTS[name][0].encode(encoding), source="a.txt")


@pytest.mark.parametrize("name", ["Russian", "German", "Greek", "Japanese"])
def test_a_little_foreign_text_far_into_much_english(name: str) -> None:
    text, (encoding, *_) = TEXTS[name]
    long = "Plain English.\n" * 10_000 + text + "\nMore plain English." * 10_000
    assert decode(long.encode(encoding), source="a.txt")[0] == long


def test_an_encoding_that_the_end_is_not_in_is_not_named() -> None:
    cyrillic = TEXTS["Russian"][0].encode("cp1251") * 60
    assert guess_legacy(cyrillic) == "windows-1251"
    assert guess_legacy(cyrillic + b"\n\x98") != "windows-1251"  # the one byte it has not


@pytest.mark.parametrize(
    ("name", "encoding"), [("Japanese", "iso2022_jp"), ("Korean", "iso2022_kr")]
)
def test_text_in_seven_bits_is_not_taken_for_english(name: str, encoding: str) -> None:
    text = TEXTS[name][0]
    assert decode(f"A.\n{text}\nB.\n".encode(encoding), source="a.txt") == (
        f"A.\n{text}\nB.\n",
        encoding,
    )
    assert decode(b"costs \x1b[1m$5\x1b[0m and \x1b$", source="a.txt")[1] == "utf-8"
