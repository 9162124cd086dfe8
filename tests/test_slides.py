"The slides: every lesson is there, the minutes make a lesson of 90, and what the table names stands in the notebooks."
import io, re, sys
import pytest
from PIL import Image
from helpers import ROOT

sys.path.insert(0, str(ROOT/'.ci'/'site'))
import excerpts, notebooks, pages, slides

def code(ident, *outputs):
    return {'cell_type': 'code', 'id': ident, 'metadata': {}, 'source': 'f()', 'outputs': list(outputs)}
def prose(text, ident='p'): return {'cell_type': 'markdown', 'id': ident, 'metadata': {}, 'source': text}
def book(*cells): return {'cells': list(cells), 'metadata': {}}

def drawn(kind='png', size=(6, 4)):
    "An output that shows a picture."
    import base64
    file = io.BytesIO()
    Image.new('RGB', size).save(file, kind)
    data = base64.b64encode(file.getvalue()).decode()
    return {'output_type': 'display_data', 'metadata': {}, 'data': {f'image/{kind}': data}}

@pytest.fixture(scope='module')
def page(): return slides.page()

@pytest.fixture(scope='module')
def lessons(): return slides.lessons()

# the deck

def test_every_lesson_has_its_slides(page, lessons):
    assert [lesson.path for lesson in lessons] == pages.lessons()
    for lesson in lessons:
        kinds = [kind for kind, _, _ in lesson.slides()]
        assert kinds[0] == 'asked' and kinds[-1] == 'kept' and 'seen' in kinds
        assert lesson.question and lesson.pictures and len(lesson.remember) >= 3, lesson.path.name
        assert f'id="lesson-{lesson.number:02}"' in page
    kinds = re.findall(r'<section class="([\w-]+)"', page)
    assert kinds[:2] == ['opening', 'places'] and kinds[-1] == 'closing' and 45 <= len(kinds) <= 60

def test_the_minutes_make_a_lesson_of_90(page):
    minutes = [int(m) for m in re.findall(r'data-minutes="(\d+)"', page)]
    spans = [(int(a), int(b)) for a, b in re.findall(r'from minute (\d+) to (\d+) of 90', page)]
    assert len(minutes) == len(pages.lessons()) and min(minutes) > 0 and sum(minutes) == 90
    assert [b - a for a, b in spans] == minutes and [a for a, _ in spans] == [0, *(b for _, b in spans[:-1])]
    assert sum(int(s) for s in re.findall(r'data-timing="(\d+)"', page)) == 60*90

def test_the_table_names_lessons_cells_and_sentences_that_are_there(lessons):
    chosen = slides.choice()
    assert {*chosen} - {'cover', 'compared'} == {lesson.path.stem for lesson in lessons}
    for lesson in lessons:           # a cell that is not there has ended `slides.lessons` already
        about, ids = lesson.choice, {c['id'] for c in lesson.nb['cells']}
        named = [*about.get('pictures', []), *about.get('captions', {}), *filter(None, [about.get('formula')])]
        assert {excerpts.split_id(key)[0] for key in named} <= ids, lesson.path.name
        assert {*about.get('captions', {})} <= {*about.get('pictures', [])}
        for quote in (*about.get('remember', []), *about.get('captions', {}).values()):
            assert excerpts.says(lesson.nb, quote), (lesson.path.name, quote)

def test_a_cell_that_is_not_there_is_named():
    with pytest.raises(LookupError, match='no cell has the id gone'): excerpts.shown(book(prose('a')), 'gone', 99)
    with pytest.raises(LookupError, match='shows no picture 2'): excerpts.shown(book(code('a', drawn())), 'a:2', 99)
    with pytest.raises(LookupError, match='has no formula 2'): excerpts.formula_of(book(prose('$$x$$')), 'p:2')

def test_boxes_are_those_that_the_lesson_shows(lessons):
    for lesson in lessons:
        text = ''.join(notebooks.source(c) for c in excerpts.markdown(lesson.nb)[:3])
        shown = {int(n) for n in re.findall(r'images/flow_(\d+)', text)}
        if shown: assert {*lesson.choice['boxes']} <= shown, lesson.path.name

def test_nothing_comes_from_another_host(page):
    style, script = ((ROOT/'.ci'/'site'/'deck'/name).read_text() for name in ('deck.css', 'deck.js'))
    for text in page, style, script.replace('// ', ''): assert not re.search(r'https?:|[("\'=]//\w|url\(', text)
    loaded = re.findall(r'(?:src|href)="([^"#]+)"', page)
    own = {'deck.css', 'deck.js', 'mathjax/tex-chtml.js', *(f'reveal/{name}' for name in slides.VENDORED.values())}
    pictures = {f'pictures/{name}' for lesson in slides.lessons() for name in lesson.files()}
    pictures |= {f'flow/{p.name}' for p in (ROOT/'nbs'/'images').glob('*.png')}
    pictures.add(f'pictures/{slides.cover(slides.choice())[0]}')
    assert {*loaded} <= own | pictures and pictures <= {*loaded}
    assert all(f'id="{name}"' in page for name in re.findall(r'href="#/([^"]+)"', page))

def test_pictures_have_a_text_for_those_who_do_not_see_them(page):
    assert page.count('<img') == len(re.findall(r'<img [^>]*alt="[^"]{5,}"', page)) > 40

def test_formulas_are_there_and_left_to_mathjax(page, lessons):
    with_one = [lesson for lesson in lessons if any('$$' in notebooks.source(c) for c in excerpts.markdown(lesson.nb))]
    assert page.count('class="formula"') == len(with_one) == sum(lesson.formula is not None for lesson in lessons) >= 10
    for tex in r'L v = \lambda D v', r'\log \hat y_{p,\,y_p}', r'\mathrm{IoU}_c', r'(1-m_p)\,x^t_p': assert tex in page
    outside = re.sub(r'<span class="math">.*?</span>|<code>.*?</code>|<pre>.*?</pre>', '', page, flags=re.S)
    assert not re.search(r'\$|\\[a-z({\[]|[\ue000\ue001]', outside)

def test_the_last_slide_has_the_figures_of_both(page):
    last = page[page.index('class="closing"'):]
    rows = re.findall(r'<tr><td>(.+?)</td><td>([\d.]+)</td><td>([\d.]+)(?: ± [\d.]+)?</td></tr>', last)
    named = {name: (float(paper), float(course)) for name, paper, course in rows}
    assert len(rows) == 10 and max(named, key=lambda name: named[name][0]) in ('no expert', 'one expert for all names')
    assert all(named['NamedMask'][i] > named['SelfMask + CLIP'][i] for i in (0, 1)) and named['no expert'][0] == 62.7
    assert slides.in_percent('.343 ± .009') == '34.3 ± 0.9' and slides.in_percent('62.7') == '62.7'

def test_without_npm_one_sentence_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(slides, 'TOOLS', tmp_path)
    monkeypatch.setattr(slides.shutil, 'which', lambda name: None)
    with pytest.raises(SystemExit) as told: slides.reveal()
    assert 'npm is not installed' in str(told.value) and str(told.value).count('. ') == 0

# what is taken from a lesson

def test_the_usual_pictures_are_the_first_and_the_last_before_the_exercises():
    b, c, d, e = (code(ident, drawn()) for ident in 'bcde')
    nb = book(code('a'), b, c, d, prose('## Exercises'), e)
    assert excerpts.usual_pictures(nb) == ['b', 'd']
    assert excerpts.usual_pictures(book(code('a', drawn()))) == ['a']

@pytest.mark.parametrize('below, caption', [
    ('*Seen: `k`. Twice.* It is so. And so on, for long.\n\nMore.', '*Seen: `k`. Twice.* It is so.'),
    ('What to see: one [link](x.ipynb) more.', 'One link more.'),
    ('*snail*, *fish* and a car. Others.', '*snail*, *fish* and a car.'),
    ('## A heading', ''),
])
def test_a_picture_has_the_sentences_below_it(below, caption):
    shown = excerpts.shown(book(prose('## The vote'), code('a', drawn()), prose(below)), 'a', 30)
    assert (shown.heading, shown.kind, shown.caption) == ('The vote', 'png', caption)

def test_a_cell_without_a_picture_shows_what_it_printed():
    nb = book(code('a', {'output_type': 'stream', 'name': 'stderr', 'text': 'warned'},
                   {'output_type': 'stream', 'name': 'stdout', 'text': ['mIoU .3\n']}))
    assert excerpts.shown(nb, 'a', 30)[2:5] == ('text', 'mIoU .3', '')

@pytest.mark.parametrize('kind', ['png', 'jpeg'])
def test_the_size_of_a_picture(kind):
    nb = book(code('a', drawn(kind, (317, 20))))
    assert excerpts.size_of(kind, excerpts.shown(nb, 'a', 9).data) == (317, 20)

def test_questions():
    asked = lambda text: excerpts.question_of(book(prose('# T\n\n> Line?'), prose(text)))
    assert asked('**The question.** Why `a`? See [2](b.ipynb).') == 'Why `a`? See 2.'
    assert asked('It fails. **Which part?** More.') == 'It fails. **Which part?**'

@pytest.mark.parametrize('items', ['1. One,\n   two.\n2. Three.', '- One,\n  two.\n- Three.'])
def test_what_to_remember(items):
    nb = book(prose(f'## What to remember\n\n{items}\n\n## Exercises\n\n- no'))
    assert excerpts.remembered(nb) == ['One, two.', 'Three.']

@pytest.mark.parametrize('tex, made', [
    (r'a = b,\qquad c = d', ['a = b,', 'c = d']),
    (r'\{x\}\quad\text{and}\quad y', [r'\{x\}', 'y']),
    (r'\begin{cases}a\quad b\end{cases}', [r'\begin{cases}a\quad b\end{cases}']),
    (r'\frac{a\quad b}{c}', [r'\frac{a\quad b}{c}']),
])
def test_a_formula_is_cut_at_its_wide_spaces(tex, made): assert excerpts.pieces(tex) == made

def test_markdown_of_a_slide():
    made = slides.line('*a* `$x$` [b](c.ipynb) $i<j$')
    assert made == r'<em>a</em> <code>$x$</code> b <span class="math">\(i&lt;j\)</span>'
    assert '<script' not in slides.line('<script>a</script>')
