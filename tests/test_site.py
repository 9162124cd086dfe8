"The pages of the site: what is left out of a notebook, what becomes of links and formulas, every public name."
import json, re, sys
import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT/'.ci'/'site'))
import check, notebooks, pages, reference

def code(text, *outputs):
    return {'cell_type': 'code', 'id': 'a', 'metadata': {}, 'source': text, 'outputs': list(outputs)}
def prose(text): return {'cell_type': 'markdown', 'id': 'b', 'metadata': {}, 'source': text}
def display(**data): return {'output_type': 'display_data', 'metadata': {}, 'data': data}
def page(*cells): return notebooks.page({'cells': list(cells), 'metadata': {}}, 0, 'https://example.org/repo')['cells']

def test_directives_are_honoured():
    shown = page(code('#| default_exp core.errors'), code('#| hide\nimport os'), code('#| export\ndef f(): pass'),
                 code('#| eval: false\nfit()'), code('1 + 1'), prose('#| hide\nnot shown'))
    assert [c['source'] for c in shown] == ['def f(): pass', shown[1]['source'], 'fit()', '1 + 1']
    assert 'reference/namedmask.core.errors.md' in shown[1]['source']
    assert [c['metadata'].get('tags') for c in shown] == [['exported'], None, [], []]

def test_a_widget_becomes_its_picture_or_a_note():
    view = {notebooks.WIDGET: {'model_id': 'x'}, 'text/plain': 'VBox(children=...)'}
    with_still, without = page(code('a', display(**view, **{'image/png': 'iVBOR'})), code('b', display(**view)))
    assert with_still['outputs'][0]['data'] == {'image/png': 'iVBOR'}
    assert without['outputs'][0]['data'] == {'text/markdown': notebooks.WIDGET_NOTE}

def test_the_sentence_below_a_picture_is_its_text():
    picture = display(**{'image/png': 'iVBOR'})
    cells = page(prose('## Cutting'), code('a()', picture), prose('*Left: `k` = $2$.* More.'), code('b()', picture))
    assert [cells[i]['metadata']['mystnb']['image']['alt'] for i in (1, 3)] == ['Left: k = 2.', 'Cutting']

@pytest.mark.parametrize('written, shown', [
    ('so\n$$A = B$$\nand', 'so\n\n\n$$\nA = B\n$$\n\nand'),
    ('- an item $$x$$', '- an item\n\n  $$\n  x\n  $$\n\n'),
    ('with $u_i$ and $a\nb$', 'with {math}`u_i` and {math}`a\nb`'),
    ('`$HOME` costs $5', '`$HOME` costs $5'),
    ('```sh\necho $A $B\n```', '```sh\necho $A $B\n```'),
])
def test_formulas(written, shown): assert notebooks.formulas(written) == shown

def test_links_lead_to_pages():
    md = '<a href="data/find.ipynb"><img src="a.png"></a> [c](../CONTRIBUTING.md) [b](../bench) [n](x.ipynb)'
    made = notebooks.prose(md, 'https://example.org/repo')
    assert made == ('<a href="data/find.html"><img src="a.png"></a> [c](/contributing.md) '
                    '[b](https://example.org/repo/tree/main/bench) [n](x.ipynb)')

def test_links_of_texts_beside_the_notebooks_lead_to_pages():
    written = 'The [guide](nbs/guide.ipynb), the [bench](nbs/lab/lab.ipynb#runs), [Apache-2.0](LICENSE) and `nbs/x.ipynb`'
    assert notebooks.root_links(written) == 'The [guide](guide.ipynb), the [bench](lab/lab.ipynb#runs), [Apache-2.0](license.md) and `nbs/x.ipynb`'

def test_every_public_name_is_in_the_reference():
    missing = []
    for source in reference.sources(ROOT):
        here, imported = '\n'.join(reference.entries(source)), reference.passed_on(source)
        missing += [f'{source.name}.{name}' for name in source.public
                    if name not in imported and not re.search(rf'\}} {re.escape(name)}\b', here)]
    assert missing == []

def test_comments_of_parameters_are_those_of_docments():
    from fastcore.docments import docments
    from namedmask.stages.spectral import image_batch
    from namedmask.runs.settings import FitSettings
    every = {s.name: s for s in reference.sources(ROOT)}
    for module, thing in ('namedmask.stages.spectral', image_batch), ('namedmask.runs.settings', FitSettings):
        source = every[module]
        node = next(n for n in source.tree.body if getattr(n, 'name', '') == thing.__name__)
        if reference.is_function(node): read = {arg.arg: source.beside(arg) for _, arg, _ in reference.parameters(node)}
        else: read = {n.target.id: source.beside(n) for n in node.body if reference.is_field(n)}
        told = {name: ' '.join((text or '').split()) for name, text in docments(thing).items() if name in read}
        assert {name: ' '.join(text.split()) for name, text in read.items()} == told

def test_a_comment_behind_several_parameters_is_of_none_alone(tmp_path):
    (tmp_path/'m.py').write_text('def f(a:int, b)->dict: # PIL image, and what `f` gave\n    "What."\n'
                                 'def g(\n    a, # first\n    b=2, # second\n)->int: # sum\n    "Sum."\n')
    source = reference.Source(tmp_path/'m.py', 'm')
    f, g = source.tree.body
    told = reference.parameter_table(source, f)
    assert told.startswith('`a`, `b`: PIL image, and what `f` gave\n') and told.count('PIL') == 1
    assert reference.parameter_table(source, g).splitlines()[-3:] == [
        '| `a` |  |  | first |', '| `b` |  | `2` | second |', '| *returns* | `int` |  | sum |']

def test_lessons_have_a_title_and_a_line():
    lessons = sorted((ROOT/'nbs').glob('[0-9][0-9]_*.ipynb'))
    assert lessons and all(all(notebooks.title_of(json.loads(p.read_text()))) for p in lessons)

def test_the_check_finds_what_is_wrong(tmp_path, capsys):
    (tmp_path/'b.html').write_text('<h1 id="top">b</h1>')
    body = ('<a href="b.html#top">ok</a><a href="b.html#end">x</a><a href="c.html">x</a><img src="no.png" alt="">'
            '<img src="b.html"><script src="https://cdn.example.org/a.js"></script><p>so $$ A = B</p>'
            r'<code>\frac is code</code><span class="math">\(\frac12\)</span>')
    (tmp_path/'a.html').write_text(body)
    with pytest.raises(SystemExit): check.main(tmp_path)
    told = [line.removeprefix('a.html: ') for line in capsys.readouterr().out.splitlines()]
    assert [line.split(': ')[0] for line in told] == [
        'dead anchor', 'dead link', 'missing', 'loads from another host',
        'a picture without a text for those who do not see it', 'a formula left as source']
    (tmp_path/'a.html').write_text('<a href="b.html#top">ok</a>')
    check.main(tmp_path)

def test_exercises_are_told_in_a_few_words():
    lesson = {'cells': [prose('## Exercises\n\n**1. Warm-up.** Let the rate rise.\n\n**2.** Why 27? Compute it.'), code('x = ...'),
                        prose('**3.** ' + 'word '*30), prose('## Questions\n\n**4. No exercise.**')], 'metadata': {}}
    first, second, third = pages.exercises(lesson)
    assert (first, second) == ('1. Warm-up.', '2. Why 27?') and third.endswith('word …') and len(third) < 70
    assert pages.exercises({'cells': [prose('# A lesson')], 'metadata': {}}) == []
    assert pages.first_words('Take $k$ words and then a formula that is long, $a + b$ of it.', 54) == 'Take $k$ words and then a formula that is long, …'

def test_times_are_those_of_the_stamp():
    assert pages.times({'metadata': {'namedmask': dict(ran='0', seconds=400, cpu_seconds=90, cores=2)}}) == {'time of one core': 90}
    assert pages.times({'metadata': {}}) == {}
