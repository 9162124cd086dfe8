"The expert groups: groups and tree with known answers, and the masks of a run before and after its experts."
import re
import numpy as np, pytest
from helpers import register, toy_fit, widths_in_pixels, write_photos
from scipy.cluster.hierarchy import linkage
from PIL import Image
from namedmask.app import expert_groups as module
from namedmask.app.expert_groups import ExpertGroups, group_colours
from namedmask.core import NamedMaskError
from namedmask.stages.expert_stage import refined
from namedmask.stages.experts import group_names

NAMES = ['cat', 'dog', 'bus', 'car', 'tree']
TEXT = np.array([[1, 0, 0], [.96, .28, 0], [0, 1, .1], [0, .96, .28], [0, 0, 1]])      # two pairs and one alone

@pytest.fixture
def explorer(): return ExpertGroups(','.join(NAMES), TEXT, k=3)

# ---------------------------------------------------------------- groups

def test_groups_are_those_of_group_names():
    explorer = ExpertGroups(NAMES, TEXT)
    for seed in (0, 3):
        explorer = ExpertGroups(NAMES, TEXT, seed=seed)
        for k in range(1, 6):
            explorer.set(k=k)
            assert explorer.groups == group_names(NAMES, TEXT, k, seed)
    explorer.set(k=3); assert explorer.groups == {'cat and 1 more': ['cat', 'dog'], 'bus and 1 more': ['bus', 'car'], 'tree': ['tree']}
    assert ExpertGroups(NAMES, TEXT).k == 5                                          # one expert a name, unless you say otherwise

def test_teachers_give_the_text_vectors():
    explorer = ExpertGroups('snail,fish,house|hut', 'mini', k=2)
    from namedmask.stages.retrieval import embed_names
    from namedmask.teachers.sets import get_teachers
    retriever = get_teachers('mini').retriever()
    text = embed_names(retriever, 'snail,fish,house|hut')
    assert np.array_equal(explorer.text, text) and explorer.groups == group_names(explorer.names, text, 2)
    for teachers in (get_teachers('mini'), retriever, text): assert ExpertGroups('snail,fish,house|hut', teachers, k=2).groups == explorer.groups

def test_each_k_is_grouped_once(explorer, monkeypatch):
    asked = []
    def noted(names, text, k, seed):
        asked.append(k)
        return group_names(names, text, k, seed)
    monkeypatch.setattr(module, 'group_names', noted)
    explorer.widget
    for k in (4, 3, 2, 4, 2, 3): explorer._controls['k'].value = k
    assert asked == [4, 2]                                                           # 3 was there from the beginning
    tree = explorer._tree
    explorer.set(k=5); explorer.still(); assert explorer._tree is tree

# ---------------------------------------------------------------- the tree

def test_the_tree_joins_the_most_alike_first(explorer):
    assert np.array_equal(explorer.links(), linkage(TEXT, 'ward'))
    first_two = {frozenset(map(int, row[:2])) for row in explorer.links()[:2]}
    assert first_two == {frozenset({0, 1}), frozenset({2, 3})}

def test_a_branch_has_the_colour_of_its_group_or_is_grey(explorer):
    branches = module._of_branches(explorer.links(), explorer._numbers())
    assert branches[:5] == [0, 0, 1, 1, 2] and sorted(branches[5:7]) == [0, 1] and branches[7:] == [None, None]
    explorer.set(k=1); assert module._of_branches(explorer.links(), explorer._numbers()) == [0]*9

def test_names_and_list_have_the_same_colours(explorer):
    from matplotlib.colors import to_hex
    figure, colours = explorer.tree(with_list=True), group_colours(3)
    leaves = {label.get_text().split()[1]: (label.get_text().split()[0], to_hex(label.get_color())) for label in figure.axes[0].get_yticklabels()}
    assert leaves == {name: (str(1 + i), colours[i]) for i, members in enumerate(explorer.groups.values()) for name in members}
    written = [(text.get_text(), to_hex(text.get_color())) for text in figure.axes[1].texts]
    assert written == [('1  cat, dog', colours[0]), ('2  bus, car', colours[1]), ('3  tree', colours[2])]
    assert re.findall(r'<li style="color:(#\w+)">([^<]+)', explorer._list_html()) == [(c, text.split('  ')[1]) for text, c in written]
    drawn = {to_hex(c) for lines in figure.axes[0].collections for c in lines.get_color()}
    assert drawn == {colours[0], colours[1], '#999999'}

def test_colours_can_be_read_on_white():
    def luminance(colour): return sum(w*((c/255 + .055)/1.055)**2.4 for w, c in zip((.2126, .7152, .0722), bytes.fromhex(colour[1:])))
    assert all(1.05/(luminance(colour) + .05) > 3 for colour in group_colours(9)) and len({*group_colours(9)}) == 9
    assert group_colours(11)[9:] == group_colours(2)

# ---------------------------------------------------------------- the widget

def test_slider_list_and_tree_agree(explorer):
    explorer.widget
    assert {*explorer._controls} == {'k'} and {*explorer._panels} == {'tree'}          # without a run no masks
    before = explorer._panels['tree'].value
    explorer._controls['k'].value = 2
    assert explorer.k == 2 and explorer._panels['tree'].value != before and explorer._list.value.count('<li') == 2
    explorer.set(k=4); assert explorer._controls['k'].value == 4 and explorer._list.value.count('<li') == 4
    alt, = re.findall(r'<img alt="([^"]+)"', explorer._panels['tree'].value)
    assert all(name in alt for name in NAMES)

def test_odd_names_are_shown():
    explorer = ExpertGroups(['a <b> & c', 'кошка', 'x'*60], np.eye(3), k=2)
    explorer.widget
    assert '<b> &' not in explorer._panels['tree'].value and 'a &lt;b&gt; &amp; c' in explorer._list.value
    assert explorer.still().width > 0

def test_mistakes(explorer):
    for k in (0, 6, 2.5, '2'):
        with pytest.raises(NamedMaskError, match='say 1 to 5'): explorer.set(k=k)
    assert explorer.k == 3
    with pytest.raises(NamedMaskError, match="no name 'cow'"): explorer.set(name='cow')
    with pytest.raises(NamedMaskError, match='no order'): explorer.set(order='size')
    with pytest.raises(NamedMaskError, match='no run to look at'): explorer.redrawn()
    with pytest.raises(NamedMaskError, match='no panel'): explorer.panel('list')
    with pytest.raises(NamedMaskError, match='at least two'): ExpertGroups('cat', TEXT[:1])
    with pytest.raises(NamedMaskError, match='say which'): ExpertGroups('cat,dog')
    with pytest.raises(NamedMaskError, match='4 text vectors for 5 names'): ExpertGroups(NAMES, TEXT[:4], k=2)

# ---------------------------------------------------------------- a run

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('run')
    return toy_fit(write_photos(folder/'photos', 6), folder/'out', groups={'warm': ['red', 'green']})

def test_a_run_brings_its_names_vectors_and_number_of_experts(run):
    explorer = ExpertGroups(run)
    assert explorer.names == ['red', 'green', 'blue'] and explorer.k == 2
    assert explorer.groups == ExpertGroups('red,green,blue', 'toy', k=2).groups
    assert explorer.expert_of('green') == ('warm', ['red', 'green']) and explorer.expert_of('blue') == ('blue', ['blue'])

def test_masks_before_and_after_are_those_of_the_run(run):
    explorer = ExpertGroups(run)
    records = {record['sha']: record for record in refined(run.folder/'experts')}
    for name in explorer.names:
        explorer.set(name=name, order='rank')
        by_rank = explorer.redrawn(100)
        assert [row.entry.sha for row in by_rank] == [entry.sha for entry in run.archive.kept(name)]
        for row in by_rank:
            assert np.array_equal(row.before, run.masks.load(row.entry.sha)) and np.array_equal(row.after, run.expert_masks.load(row.entry.sha))
            assert row.record == records[row.entry.sha]
        explorer.set(order='changed')
        assert [row.record['iou'] for row in explorer.redrawn(100)] == sorted(row.record['iou'] for row in by_rank)
        assert len(explorer.redrawn()) == min(explorer.photos, len(by_rank)) and len(explorer.redrawn(2)) == 2

def test_what_is_shown_are_these_masks(run):
    "The middle row of the picture is dark outside the mask of before, the lowest outside that of after."
    explorer = ExpertGroups(run, photos=2, size=96)
    row, sheet = explorer.redrawn()[0], np.asarray(explorer.panel('masks').picture).astype(int)
    photo = np.asarray(Image.open(row.entry.path).resize((96, 72))).astype(int)
    step, top = (sheet.shape[0] - 4)//3, 4 + 12
    for i, mask in ((1, row.before), (2, row.after)):
        cell = sheet[top + i*step:top + i*step + 72, 4:100]
        on = np.asarray(Image.fromarray(mask).resize((96, 72), Image.Resampling.BILINEAR)) >= 128
        line = (cell == (255, 40, 40)).all(2)
        assert np.abs(cell - photo)[on].mean() < 12 and np.abs(cell - .3*photo)[~on & ~line].mean() < 12

def test_the_widget_of_a_run(run):
    explorer = ExpertGroups(run)
    explorer.widget
    tree, masks = (explorer._panels[which].value for which in ('tree', 'masks'))
    explorer._controls['name'].value = 'green'
    assert explorer.name == 'green' and explorer._panels['masks'].value != masks and explorer._panels['tree'].value == tree
    assert 'warm' in explorer.panel('masks').caption and 'who also has red' in explorer.panel('masks').caption
    explorer._controls['order'].value = 'rank'; assert explorer.order == 'rank'
    explorer.set(name='blue', order='changed'); assert (explorer._controls['name'].value, explorer._controls['order'].value) == ('blue', 'changed')
    assert widths_in_pixels(explorer.widget) == []
    masks = explorer._panels['masks'].value
    explorer._controls['k'].value = 3; assert explorer._panels['masks'].value == masks
    still = explorer.still(); assert still.mode == 'RGB' and still.height > explorer.panel('masks').picture.height

def test_a_photo_that_is_gone_leaves_a_grey_field(run):
    explorer = ExpertGroups(run, photos=1)
    path = explorer.redrawn()[0].entry.path
    path.rename(path.with_suffix('.gone'))
    try: assert explorer.panel('masks').picture.width > 0
    finally: path.with_suffix('.gone').rename(path)

def test_a_run_without_experts_says_so(run, tmp_path):
    register()
    bare = toy_fit(run.folder.parent/'photos', tmp_path/'bare', experts=False)
    explorer = ExpertGroups(bare)
    assert explorer.k == 3
    with pytest.raises(NamedMaskError, match='no masks by experts'): explorer.panel('masks')
    explorer.widget; assert 'no masks by experts' in explorer._panels['masks'].value

def test_groups_go_back_into_fit(run, tmp_path):
    explorer = ExpertGroups(run, k=2)
    again = toy_fit(run.folder.parent/'photos', tmp_path/'again', groups=explorer.groups)
    assert again.settings['groups'] == explorer.groups
    assert {record['sha'] for record in refined(again.folder/'experts')} == {entry.sha for entry in again.archive.kept()}
