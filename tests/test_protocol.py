"Cards and tables: what may stand in one column, what is refused, and what a row says of itself."
import json
from dataclasses import asdict, replace
from types import SimpleNamespace as NS
import numpy as np, pytest
from namedmask.core import NamedMaskError
from namedmask.evaluate.voc import VOC_NAMES, VocBenchmark
from namedmask.evaluate.score import evaluate, log_result
from namedmask.evaluate.naive import naive_baseline
from namedmask.evaluate.protocol import (AGREE, SHOWN, UNKNOWN, Protocol, card_of, differences, entry_of, listing, protocol_of,
    published, results_table, same_protocol, tables_from, tier_of, with_card)
from namedmask.teachers.cards import TeacherCard
from namedmask.mini.world import World
from namedmask.mini.folder import write_world

NAMES = ('fish', 'boat', 'bird')
CLIP, DINO, RESNET = (TeacherCard(n, 'features', s, 'MIT', 'x', sha256=n*3) for n, s in (('CLIP', 'image-text pairs'), ('DINO', 'nothing'), ('ResNet', 'image labels')))

class System:
    "Paints every photo with one label."
    def __init__(self, label=1, names=NAMES, cards=(CLIP, DINO), **protocol):
        self.names, self.label, self.cards, self.key = list(names), label, list(cards), f'key{label}'
        self.protocol = dict(prompts='a photo of a {}', background='none', crf=False, transfer='zero-shot') | protocol
    def predict(self, im): return np.full((im.height, im.width), self.label, np.uint8)

@pytest.fixture(scope='module')
def worlds(tmp_path_factory):
    root = tmp_path_factory.mktemp('worlds')
    return [VocBenchmark(write_world(World('test', 3, size=48, names=NAMES, seed=s), root/f'w{s}', quiet=True), NAMES) for s in (0, 1)]

@pytest.fixture(scope='module')
def lines(worlds):
    "Two systems, two seeds."
    return [with_card(evaluate(System(k), worlds[0], quiet=True), name, seed=seed) | dict(miou=m) for name, k, ms in (('A', 1, (.5, .6)), ('B', 2, (.2, .2)))
            for seed, m in enumerate(ms)]

def rows(table): return {r.split('|')[1].strip(): [c.strip() for c in r.split('|')[2:-1]] for r in table.splitlines() if r.startswith('|')}


# ---- cards

def test_a_card_from_the_system_or_from_the_line(worlds):
    system = System(2, crf='dense CRF', thresholds='.5, chosen on the archive', transfer='name-only', colour='blue')
    card = protocol_of(system, worlds[0], seed=7)
    assert (card.benchmark, card.split, card.photos, card.classes['items']) == ('voc', 'val', 3, ['background', *NAMES])
    assert (card.transfer, card.tier, card.crf, card.matching) == ('name-only', 'image-text pairs', 'dense CRF', 'none')
    assert (card.names['items'], card.model, card.seed, card.resizing, card.other) == (list(NAMES), 'key2', 7, None, dict(colour='blue'))
    assert [o['sha256'] for o in card.models] == ['CLIP'*3, 'DINO'*3]
    line = json.loads(json.dumps(evaluate(system, worlds[0], quiet=True)))          # as a file of results has it
    assert asdict(card_of(dict(line, seed=7))) == json.loads(json.dumps(asdict(card)))
    kept = with_card(line, 'row', seed=7)
    assert card_of(json.loads(json.dumps(kept))) == card_of(dict(line, seed=7)) and kept['card']['version']

def test_every_field_has_its_use():
    assert not set(AGREE) & set(SHOWN) and {*AGREE, *SHOWN} < set(Protocol().__dict__)
    json.dumps(asdict(Protocol()))

def test_tiers():
    assert [tier_of(o) for o in ([DINO], [DINO, CLIP], [CLIP, RESNET, DINO], [dict(supervision='masks')], ['image labels'], [], None, UNKNOWN)] == \
           ['nothing', 'image-text pairs', 'image labels', 'masks', 'image labels', 'nothing', UNKNOWN, UNKNOWN]
    with pytest.raises(NamedMaskError, match="'scribbles' on a card"): tier_of([dict(supervision='scribbles')])

def test_a_system_that_says_nothing_is_unknown(worlds):
    mute = NS(names=list(NAMES), key='mute', predict=System().predict)
    card = protocol_of(mute, worlds[0])
    assert [getattr(card, k) for k in SHOWN] == [UNKNOWN]*4 and card.models == UNKNOWN
    assert 'says nothing of transfer, tier, crf, matching' in results_table([with_card(evaluate(mute, worlds[0], quiet=True), 'mute')])

def test_a_trained_segmenter_says_it_in_its_meta(worlds):
    seg = NS(names=list(NAMES), key='s', meta=dict(side=96, supervision=[CLIP.as_dict()]), segment=lambda im: (System().predict(im), None))
    card = protocol_of(seg, worlds[0])
    assert (card.transfer, card.tier, card.crf, card.resolution) == ('name-only', 'image-text pairs', 'no', 'shorter side 96')
    seg.meta['supervision'].append(dict(name='true masks', supervision='masks'))
    assert (protocol_of(seg, worlds[0]).transfer, protocol_of(seg, worlds[0]).tier) == ('true masks', 'masks')

def test_the_naive_baseline_says_how_it_works(worlds):
    retriever = NS(side=32, card=CLIP, preprocess=lambda im: np.zeros((3, 8, 8)), embed=lambda b: np.eye(3)[:1])
    detector = lambda im: np.zeros((im.height, im.width))
    detector.card = DINO
    card = card_of(naive_baseline(retriever, np.eye(3), detector, worlds[0], quiet=True))
    assert (card.transfer, card.tier, card.crf) == ('zero-shot', 'image-text pairs', 'no') and 'fixed beforehand' in card.thresholds

def test_long_lists_are_a_number_and_a_hash():
    names = [f'n{i}' for i in range(919)]
    a = listing(names)
    assert (a['n'], a['items']) == (919, None) and a['key'] == listing(names[::-1])['key'] != listing(names[1:])['key']


# ---- what may stand in one column

def test_words_and_order_of_the_names_do_not_matter(tmp_path):
    from namedmask.data.toy import write_toy_photos
    write_toy_photos(tmp_path/'voc', 2, size=48, voc='val', ids=dict(circle=3, square=20, triangle=4, star=8))
    a, b, c = (protocol_of(System(names=n), VocBenchmark(tmp_path/'voc', n)) for n in (['TV/monitor', 'cat'], ['cat', 'television'], ['cat', 'bird']))
    assert same_protocol(a, b) and a.names != b.names and list(differences(a, c)) == ['classes']

@pytest.mark.parametrize('field,value', [('split', 'train'), ('ignored', 'nothing'), ('truth_background', 'not a class'), ('scored_at', '512x512'), ('averaging', 'over photos'),
                                         ('photos', 4), ('truth', 'other files'), ('benchmark', 'coco')])
def test_what_must_agree_is_refused(lines, field, value):
    a, b = (card_of(lines[i]) for i in (0, 2))
    assert same_protocol(a, b) and not same_protocol(a, replace(b, **{field: value})) and not same_protocol(a, replace(b, **{field: UNKNOWN}))
    other = dict(lines[2], card=asdict(replace(b, **{field: value})), column='voc val', place='b.jsonl:3')
    with pytest.raises(NamedMaskError) as e: results_table([dict(lines[0], place='a.jsonl:1'), other])
    for word in ("'A'", "'B'", 'a.jsonl:1', 'b.jsonl:3', field, 'mixed=True'): assert word in str(e.value)
    table = results_table([lines[0], other], mixed=True)
    assert rows(table)['B'][-1] == '20.0 (1)' and rows(table)['A'][-1] == '50.0' and f'(1) another protocol than the rest of voc val: {field} {value} instead of' in table

def test_what_is_shown_may_differ(lines):
    other = dict(lines[2], card=asdict(replace(card_of(lines[2]), transfer='name-only', tier='image labels', crf='yes', matching='Hungarian on the truth')))
    table = rows(results_table([lines[0], other]))
    assert table['A'] == ['zero-shot', 'image-text pairs', 'no', 'none', '1', '50.0'] and table['B'][:4] == ['name-only', 'image labels', 'yes', 'Hungarian on the truth']

def test_the_odd_one_is_the_one_outnumbered(lines):
    odd = dict(lines[0], system='odd', card=asdict(replace(card_of(lines[0]), ignored='nothing')))
    table = rows(results_table([odd, lines[0], lines[2]], mixed=True))
    assert '(1)' in table['odd'][-1] and '(1)' not in table['A'][-1] + table['B'][-1]

def test_each_seed_may_have_scenes_of_its_own(worlds):
    make = lambda name, label, seeds: [with_card(evaluate(System(label), worlds[s], quiet=True), name, seed=s) for s in seeds]
    assert ' ± ' in rows(results_table(make('A', 1, (0, 1)) + make('B', 2, (0, 1))))['A'][-1]
    with pytest.raises(NamedMaskError, match='truth'): results_table(make('A', 1, (0, 1)) + make('B', 2, (0,)))   # B did not see the other scenes


# ---- the table

def test_mean_and_spread_over_seeds(lines):
    table = results_table(lines)
    assert rows(table)['A'][-2:] == ['2', '55.0 ± 7.1'] and rows(table)['B'][-1] == '20.0 ± 0.0'     # .1/sqrt(2), the sample deviation
    assert '4 classes; 3 photos; scored at native resolution' in table
    assert rows(results_table([lines[0] | dict(miou_ci=[.4, .66])], ci=True))['A'][-1] == '50.0 [40.0, 66.0]'
    assert rows(results_table(lines, metric='pixel_accuracy'))['A'][-2] == '2'

def test_columns(lines):
    table = results_table([*lines, dict(lines[0], column='one | thing', miou=.9), dict(lines[1], column='one | thing', miou=.7)])
    head = next(r for r in table.splitlines() if r.startswith('| system'))
    assert head.endswith('| seeds | voc val | one \\| thing |') and '80.0 ± 14.1' in table
    assert table.count('\n| B |') == 1 and '| 20.0 ± 0.0 |  |' in table                                # B has no figure there

def test_later_lines_replace_earlier_ones(lines, tmp_path):
    for m in (.1, .5): log_result(tmp_path/'a'/'results.jsonl', lines[0] | dict(miou=m))
    assert rows(tables_from(tmp_path/'a'/'results.jsonl'))['A'][-1].startswith('50.0')
    log_result(tmp_path/'b'/'results.jsonl', lines[0] | dict(card=lines[0]['card'] | dict(model='another')))
    with pytest.raises(NamedMaskError, match='of different models') as e: tables_from([tmp_path/'a'/'results.jsonl', tmp_path/'b'/'results.jsonl'])
    assert 'results.jsonl:2' in str(e.value)

def test_results_of_runs(worlds, tmp_path):
    for run, label in (('r1', 1), ('r2', 2)):
        log_result(tmp_path/run/'results.jsonl', evaluate(System(label), worlds[0], quiet=True), what='student', seed=0)
        log_result(tmp_path/run/'results.jsonl', dict(mean_iou=.5, protocol='mean over photos'), what='masks', seed=0)
    assert set(rows(tables_from([tmp_path/'r1'/'results.jsonl']))) >= {'student'}
    both = rows(tables_from([str(tmp_path/'r1'/'results.jsonl'), tmp_path/'r2'/'results.jsonl']))
    assert {'r1 student', 'r2 student'} < set(both) and 'masks' not in str(both)

def test_lines_from_before_there_were_cards(worlds):
    new = dict(evaluate(System(), worlds[0], quiet=True), what='student')
    old = {k: v for k, v in new.items() if k != 'made_by'}
    assert card_of(old).classes == card_of(new).classes and same_protocol(card_of(old), card_of(new))
    table = results_table([dict(old, what='old'), new])
    assert rows(table)['old (1)'][:4] == [UNKNOWN, 'image-text pairs', UNKNOWN, UNKNOWN] and '(1) the line says nothing of transfer, crf, matching' in table
    for bad in (dict(miou=.5, what='x'), dict(miou=.5, what='x', protocol='as usual')):
        with pytest.raises(NamedMaskError, match='no protocol card.*evaluate it again'): results_table([bad])

def test_trouble_is_named(lines, tmp_path):
    with pytest.raises(NamedMaskError, match='There is no file'): tables_from([tmp_path/'no.jsonl'])
    log_result(tmp_path/'r.jsonl', dict(mean_iou=.5), what='masks')
    with pytest.raises(NamedMaskError, match='No line has a miou'): tables_from(tmp_path/'r.jsonl')
    with pytest.raises(NamedMaskError, match="log it with system="): results_table([{k: v for k, v in lines[0].items() if k != 'system'}])


# ---- published figures

def test_published_figures():
    found = {(o['system'], o['seed']): o['miou'] for o in published('voc')}
    assert found['NamedMask (published)', 'paper'] == .592 and found['NamedMask (published)', 'weights'] == .593 and found['MaskDistill (published)', None] == .458
    for b in ('voc', 'coco', 'coca', 'cityscapes', 'imagenet-s50', 'imagenet-s300', 'imagenet-s919'):
        for o in published(b): assert 0 < o['miou'] < 1 and 'published, not run here: ' in o['note'] and card_of(o).benchmark == b
    with pytest.raises(NamedMaskError, match='there are for voc'): published('ade')

def test_published_figures_agree_with_the_recipes():
    from namedmask.evaluate.recipes import RECIPES
    for key, b in (('voc2012', 'voc'), ('coco2017', 'coco'), ('coca', 'coca'), ('cityscapes', 'cityscapes'), ('imagenet-s50', 'imagenet-s50')):
        found = {o['seed']: round(100*o['miou'], 1) for o in published(b) if o['system'].startswith('NamedMask ')}
        want = RECIPES[key].published
        assert all(found[k] == want[k] for k in ('paper', 'weights') if k in want), b
        assert card_of(published(b)[0]).classes['n'] == 1 + len(RECIPES[key].names)

def test_published_figures_join_the_same_benchmark_only(lines):
    table = results_table(lines, published=published('voc'))
    head = next(r for r in table.splitlines() if r.startswith('| system'))
    assert head.endswith('| voc val | voc val, published |') and '59.2 / 59.3' in table
    voc = asdict(replace(card_of(lines[0]), classes=listing(['background', *VOC_NAMES]), photos=1449, truth_background='VOC background stays class 0 and is scored',
                         ignored='255 and all VOC classes outside the names', truth='hash of the files'))
    table = results_table([dict(lines[0], card=voc)], published=published('voc'))
    assert 'voc val, published' not in table and 'published, not run here' in table and 'another benchmark' not in table
    table = results_table(lines, published=published('voc', column='voc val'))           # by force: with a footnote
    assert 'another benchmark or protocol than voc val: 21 classes instead of 4 classes' in table and 'photos 1449 instead of 3' in table
