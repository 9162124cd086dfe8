"Teachers: cards, weights, engines, ConSE, CLIP's and DINO's layouts. Tiny networks with random weights stand for large ones."
import hashlib, json, logging, os, subprocess, sys
from pathlib import Path
import numpy as np, pytest, torch
from PIL import Image
from namedmask.teachers import cards as cards_module, sets, engine as engine_module, conse, weights as weights_module, lite, words, timm as timm_module, wheels, clip
from namedmask.core import NamedMaskError

@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('NAMEDMASK_CACHE', str(tmp_path/'cache')); monkeypatch.setenv('HF_HUB_OFFLINE', '1')
    return tmp_path/'cache'

def picture(seed=0, size=(90, 60)): return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).resize(size)
def sha(path): return hashlib.sha256(Path(path).read_bytes()).hexdigest()

# -- cards
def test_masks_need_a_word():
    with pytest.raises(NamedMaskError, match='allow_masks=True'): cards_module.TeacherCard('x', 'features', 'masks', '', '')
    assert cards_module.TeacherCard('x', 'features', 'masks', '', '', allow_masks=True).as_dict()['supervision'] == 'masks'
    with pytest.raises(NamedMaskError, match='unknown'): cards_module.TeacherCard('x', 'features', 'magic', '', '')

def test_cards_are_honest():
    by = lambda which: {c.role: c.supervision for c in sets.get_teachers(which).cards()}
    assert by('offline') == dict(retriever='image labels', features='image labels', student='image labels')
    assert by('paper') == dict(retriever='image-text pairs', features='nothing', student='nothing')
    assert all(c.licence and c.source for w in ('offline', 'paper') for c in sets.get_teachers(w).cards())

def test_cards_stay_with_what_was_made(tmp_path):
    from types import SimpleNamespace
    a, b = cards_module.TeacherCard('a', 'retriever', 'image-text pairs', 'MIT', 'here', 'ab'), cards_module.TeacherCard('b', 'features', 'masks', 'MIT', 'there', allow_masks=True)
    cards_module.keep_cards(tmp_path/'one', [a]); cards_module.keep_cards(tmp_path/'two', [b.as_dict(), a])
    assert cards_module.cards_of(SimpleNamespace(folder=tmp_path/'one'), str(tmp_path/'two'), tmp_path/'three', [1, 2]) == [a, b]
    stamp = (tmp_path/'one'/'cards.json').stat().st_mtime_ns
    cards_module.keep_cards(tmp_path/'one', [a]); cards_module.keep_cards(tmp_path/'empty', [])
    assert (tmp_path/'one'/'cards.json').stat().st_mtime_ns == stamp and not (tmp_path/'empty').exists()
    cards_module.keep_cards(tmp_path/'one', [])
    assert cards_module.cards_of(tmp_path/'one') == []
    for text in ('[{"name": "x"}]', '[{"name": "x", "supervision": "masks"}]', '[1]', '{"a": 1}',
                 '[{"name": [], "role": "x", "supervision": "nothing", "licence": "x", "source": "x", "sha256": ""}]'):
        (tmp_path/'one'/'cards.json').write_text(text)
        with pytest.raises(NamedMaskError, match='cards.json does not hold the cards'): cards_module.cards_of(tmp_path/'one')

def test_sets():
    with pytest.raises(NamedMaskError, match='offline, paper'): sets.get_teachers('clip')
    mine = sets.TeacherSet('mine', list, list, lambda e: ({'a': 1}, None))
    try: assert sets.get_teachers(sets.register_teachers(mine).name) is mine and mine.student_init('tu-x') == ({'a': 1}, None)
    finally: sets.TEACHERS.pop('mine')

# -- weights
def test_missing_wheel(monkeypatch):
    monkeypatch.setitem(wheels._WHEELS, 'gone', ('no-such-package-at-all', 'a.pth', '0'*64))
    with pytest.raises(NamedMaskError, match=r'pip install "namedmask\[offline\]"'): wheels.offline_weights('gone')

def test_changed_wheel(monkeypatch):
    monkeypatch.setitem(wheels._WHEELS, 'bad', (*wheels._WHEELS['lite0'][:2], '0'*64))
    with pytest.raises(NamedMaskError, match='not the expected one'): wheels.offline_weights('bad')

def test_wheels_are_not_imported():
    code = "from namedmask.teachers.wheels import lite_state_dict as f; f(0); import sys; sys.exit(any('lite0_pytorch' in m for m in sys.modules))"
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0

@pytest.mark.parametrize('size, block', [(0, 112), (2, 120)])
def test_lite_features(size, block):
    x = np.random.default_rng(0).random((2, 3, 96, 64), dtype=np.float32)
    f = lite.EfficientNetLiteFeatures(size, threads=1)
    a, b = f.features(x), lite.EfficientNetLiteFeatures(size, engine='torch', device='cpu').features(x)
    assert a['block'].shape == (2, block, 6, 4) and a['head'].shape == (2, 1280, 6, 4) and a['head'].dtype == np.float32
    for k in a: assert np.abs(a[k] - b[k]).max() < 2e-3
    with torch.no_grad():
        net = wheels._lite(size, output_stride=16)
        ref = net(torch.tensor(x)*2 - 1).numpy()
    assert np.abs(f.class_logits(b['head']).mean((2, 3)) - ref).max() < 1e-3       # padding by TensorFlow's rule, classifier per place
    with pytest.raises(NamedMaskError, match='multiples of 16'): f.features(x[..., :50])

def test_student_loads_the_encoder():
    sd, card = sets.get_teachers('offline').student_init('tu-tf_efficientnet_lite0')
    import timm
    net = timm.create_model('tf_efficientnet_lite0', features_only=True)
    left = net.load_state_dict(sd, strict=False).missing_keys
    assert not [k for k in left if not k.endswith('num_batches_tracked')] and card.supervision == 'image labels'
    assert sets.get_teachers('offline').student_init('resnet18')[0] is None

def test_damaged_export_says_so(cache):
    net = torch.nn.Conv2d(3, 2, 1)
    engine_module.onnx_session(net, torch.zeros(1, 3, 4, 4), 'k')
    (f,) = (cache/'onnx').iterdir()
    engine_module.onnx_session(net, torch.zeros(1, 3, 4, 4), 'k'); assert list((cache/'onnx').iterdir()) == [f]
    f.write_bytes(b'rubbish')
    with pytest.raises(NamedMaskError, match='delete it'): engine_module.onnx_session(net, torch.zeros(1, 3, 4, 4), 'k')

def test_unknown_engine():
    with pytest.raises(NamedMaskError, match='auto, onnx or torch'): lite.EfficientNetLiteFeatures(0, engine='tpu').features(np.zeros((1, 3, 16, 16), np.float32))

# -- ConSE
def test_conse_is_the_formula():
    rng = np.random.default_rng(0)
    p, s = rng.random((5, 30)), rng.standard_normal((30, 7))
    p /= p.sum(1, keepdims=True)
    for row, got in zip(p, conse.conse(p, s, best=4)):
        top = np.argsort(-row)[:4]
        v = sum(row[t]*s[t] for t in top)/row[top].sum()
        assert np.allclose(got, v/np.linalg.norm(v), atol=1e-6)

def test_class_texts():
    assert conse.class_texts()[348] == 'a photo of a ram, a kind of sheep, bovid, ruminant, even-toed ungulate'
    assert conse.class_texts(0)[345] == 'a photo of a ox'
    assert len(words.class_named('dog')) > 110 and 348 in words.class_named('sheep')

def test_conse_finds_the_cat():
    data = pytest.importorskip('skimage.data')
    r = conse.ConSERetriever(threads=1)
    v = r.embed(np.stack([r.preprocess(Image.fromarray(a)) for a in (data.chelsea(), data.coffee())]))
    q = r.embed_texts(['a photo of a cat', 'a photo of a cup'])
    assert v.shape == (2, 384) and v.dtype == np.float32 and np.allclose(np.linalg.norm(v, axis=1), 1, atol=1e-5)
    assert (v @ q.T).argmax(1).tolist() == [0, 1]
    slow = conse.ConSERetriever(engine='torch', device='cpu')
    assert np.abs(slow.embed(r.preprocess(Image.fromarray(data.chelsea()))[None]) - v[:1]).max() < 1e-3

def test_the_paper_s_templates():
    t = words.paper_templates()
    assert len(t) == len(set(t)) == 85 and sum(o.endswith('in the scene.') for o in t) == 5 and all(o.count('{}') == 1 for o in t)
    assert {'itap of a {}.', 'a photo of many {}.', 'this is one {} in the scene.'} <= set(t)
    assert conse.ConSERetriever().templates == clip.OpenClipRetriever().templates == words.paper_templates()

# -- open_clip
@pytest.fixture
def tiny_clip(tmp_path):
    import open_clip
    (tmp_path/'nm-tiny.json').write_text(json.dumps(dict(embed_dim=16, vision_cfg=dict(image_size=32, layers=1, width=32, patch_size=16, head_width=16),
        text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=1))))
    open_clip.add_model_config(tmp_path/'nm-tiny.json')
    torch.manual_seed(0)
    model = open_clip.create_model('nm-tiny').eval()
    torch.save(model.state_dict(), tmp_path/'tiny.pt')
    return model, tmp_path/'tiny.pt'

def test_open_clip_from_a_file(cache, tiny_clip):
    import open_clip
    model, file = tiny_clip
    r = clip.OpenClipRetriever('nm-tiny', 'mine', file=file, sha256=sha(file), device='cpu')
    im = picture()
    ref = open_clip.transform.image_transform(32, is_train=False)(im)
    assert np.array_equal(r.preprocess(im), ref.numpy())
    with torch.no_grad():
        v = model.encode_image(ref[None], normalize=True).numpy()
        t = model.encode_text(open_clip.get_tokenizer('nm-tiny')(['a cat']), normalize=True).numpy()
    assert np.allclose(r.embed(ref.numpy()[None]), v, atol=1e-5) and np.allclose(r.embed_texts(['a cat']), t, atol=1e-5)
    with pytest.raises(NamedMaskError, match='not the expected one'): clip.OpenClipRetriever('nm-tiny', 'mine', file=file, sha256='0'*64).embed_texts(['x'])
    with pytest.raises(NamedMaskError, match='check the path'): clip.OpenClipRetriever('nm-tiny', 'mine', file='gone.pt').embed_texts(['x'])

def test_open_clip_file_in_the_cache(cache, tiny_clip):
    from safetensors.torch import save_file
    (cache/'weights').mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in tiny_clip[0].state_dict().items()}, cache/'weights'/'nm-tiny-mine.safetensors')
    assert clip.OpenClipRetriever('nm-tiny', 'mine', device='cpu').embed_texts(['x', 'y']).shape == (2, 16)

def test_open_clip_quick_gelu(cache, tiny_clip, monkeypatch):
    r = clip.OpenClipRetriever('nm-tiny', 'mine', file=tiny_clip[1], device='cpu'); r.cfg = dict(quick_gelu=True)
    assert any(type(m).__name__ == 'QuickGELU' for m in r._load().modules())
    r = clip.OpenClipRetriever('nm-tiny', 'mine', file=tiny_clip[1], device='cpu')
    assert not any(type(m).__name__ == 'QuickGELU' for m in r._load().modules())
    assert clip.OpenClipRetriever().settings['quick_gelu'] and clip.OpenClipRetriever('ViT-L-14-336', 'openai').settings['quick_gelu']

def test_offline_message_of_clip(cache, monkeypatch):
    import open_clip
    def no_network(*a, **k): raise OSError('no route to host')
    monkeypatch.setattr(open_clip, 'download_pretrained', no_network)
    with pytest.raises(NamedMaskError) as e: clip.OpenClipRetriever().embed_texts(['a cat'])
    assert 'ViT-L-14-336px.pt' in str(e.value) and str(cache/'weights') in str(e.value) and 'https://' in str(e.value)

def test_torchscript_file(cache, tmp_path, tiny_clip):
    class Box(torch.nn.Module):
        def __init__(self): super().__init__(); self.visual = torch.nn.Linear(2, 2)
        def forward(self, x): return self.visual(x)
    torch.jit.script(Box().half()).save(str(tmp_path/'jit.pt'))
    assert set(weights_module._load_state(tmp_path/'jit.pt')) == {'visual.weight', 'visual.bias'}

def test_pickle_that_runs_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self): return os.mkdir, (str(tmp_path/'pwned'),)
    torch.save({'a': Evil()}, tmp_path/'evil.pth')
    with pytest.raises(NamedMaskError, match='more than weights'): weights_module._load_state(tmp_path/'evil.pth')
    assert not (tmp_path/'pwned').exists()

# -- timm
@pytest.mark.parametrize('wrap', [lambda sd: sd, lambda sd: {'teacher': {f'backbone.{k}': v for k, v in sd.items()} | {'head.x': torch.zeros(1)}},
                                  lambda sd: {'state_dict': {f'module.encoder_q.{k}': v for k, v in sd.items()}, 'epoch': 3}])
def test_dino_layouts(cache, tmp_path, wrap):
    "DINO's released files, its training checkpoints and MoCo's wrapping give the same features."
    import timm
    torch.manual_seed(1)
    net = timm.create_model('resnet18', num_classes=0).eval()
    torch.save(wrap(net.state_dict()), tmp_path/'w.pth')
    f = timm_module.TimmFeatures('resnet18', file=tmp_path/'w.pth', sha256=sha(tmp_path/'w.pth'), supervision='nothing', device='cpu')
    x = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    mean, std = (torch.tensor(o)[:, None, None] for o in (f.mean, f.std))
    with torch.no_grad(): ref = net.forward_features((torch.tensor(x) - mean)/std).numpy()
    assert f.stride == 32 and np.allclose(f.features(x)['last'], ref, atol=1e-4) and f.card.supervision == 'nothing'

def resnet_and_layouts(kind):
    "A small ResNet, and a file's content in the layout of MoCo v2's or SwAV's release."
    import timm
    torch.manual_seed(2)
    net = timm.create_model('resnet18', num_classes=0, output_stride=8).eval()
    own, z = net.state_dict(), torch.zeros
    if kind == 'swav': return net, {**{f'module.{k}': v for k, v in own.items()}, 'module.projection_head.0.weight': z(8, 512),
                                    'module.projection_head.1.running_mean': z(8), 'module.prototypes.weight': z(16, 4)}
    sd = {**{f'module.encoder_q.{k}': v for k, v in own.items()}, 'module.encoder_q.fc.0.weight': z(8, 512), 'module.encoder_q.fc.0.bias': z(8), 'module.encoder_q.fc.2.weight': z(4, 8)}
    sd |= {k.replace('encoder_q', 'encoder_k'): v + 1 for k, v in sd.items()}
    return net, dict(epoch=800, arch='resnet50', optimizer=torch.optim.SGD(net.parameters(), .03, momentum=.9).state_dict(),
                     state_dict=sd | {'module.queue': z(4, 16), 'module.queue_ptr': z(1, dtype=torch.long)})

@pytest.mark.parametrize('kind', ['moco', 'swav'])
@pytest.mark.parametrize('zipped', [True, False])                    # the releases are of before PyTorch's zip format
def test_moco_and_swav_layouts(cache, tmp_path, kind, zipped):
    net, content = resnet_and_layouts(kind)
    torch.save(content, tmp_path/'w.pth.tar', _use_new_zipfile_serialization=zipped)
    f = timm_module.TimmFeatures('resnet18', file=tmp_path/'w.pth.tar', stride=8, supervision='nothing', device='cpu')
    x = np.random.default_rng(0).random((1, 3, 64, 48), dtype=np.float32)
    mean, std = (torch.tensor(o)[:, None, None] for o in (f.mean, f.std))
    with torch.no_grad(): ref = net.forward_features((torch.tensor(x) - mean)/std).numpy()
    got = f.features(x)['last']
    assert got.shape == (1, 512, 8, 6) and np.allclose(got, ref, atol=1e-4)

def test_the_paper_s_three_feature_teachers(cache):
    f = sets.get_teachers('paper').features()
    assert [o.stride for o in f] == [16, 8, 8] and [o.card.supervision for o in f] == ['nothing']*3
    assert [o.card.licence for o in f] == ['Apache-2.0', 'CC BY-NC 4.0', 'CC BY-NC 4.0']
    assert [o.card.source.rsplit('/', 1)[1] for o in f] == ['dino_deitsmall16_pretrain.pth', 'moco_v2_800ep_pretrain.pth.tar', 'swav_800ep_pretrain.pth.tar']
    assert sets.get_teachers('paper').spectral == dict(upsample=2, centre=False)

def test_dilation_is_the_one_of_selfmask(cache):
    "Stride 8: layer3 with dilation 2 and layer4 with 4, their first block with half of it."
    import timm
    net = timm.create_model('resnet50', output_stride=8)
    assert [[b.conv2.dilation[0] for b in getattr(net, f'layer{i}')] for i in (2, 3, 4)] == [[1]*4, [1, 2, 2, 2, 2, 2], [2, 4, 4]]
    assert all(b.conv2.stride == (1, 1) for i in (3, 4) for b in getattr(net, f'layer{i}'))

def test_vit_tokens_and_keys(cache, tmp_path):
    import timm
    torch.manual_seed(1)
    net = timm.create_model('vit_tiny_patch16_224', num_classes=0).eval()
    torch.save(net.state_dict(), tmp_path/'w.pth')
    x = np.random.default_rng(0).random((1, 3, 224, 224), dtype=np.float32)
    make = lambda s: timm_module.TimmFeatures('vit_tiny_patch16_224', file=tmp_path/'w.pth', supervision='nothing', source=s, device='cpu')
    f = make('last')
    mean, std = (torch.tensor(o)[:, None, None] for o in (f.mean, f.std))
    with torch.no_grad(): tokens = net.forward_features((torch.tensor(x) - mean)/std)[:, 1:].numpy()
    got = f.features(x)['last']
    assert got.shape == (1, 192, 14, 14) and np.allclose(got.reshape(1, 192, -1).transpose(0, 2, 1), tokens, atol=1e-3)
    keys = make('key').features(x[..., :96])['key']
    assert keys.shape == (1, 192, 14, 6)                                           # other sizes than in training
    assert np.array_equal(f.with_source('key').features(x[..., :96])['key'], keys) and f.sources == ('last',)
    with pytest.raises(NamedMaskError, match='no keys'): timm_module.TimmFeatures('resnet18').with_source('key')

def test_timm_says_what_is_wrong(cache, tmp_path, monkeypatch):
    torch.save({'a': torch.zeros(2)}, tmp_path/'w.pth')
    x = np.zeros((1, 3, 64, 64), np.float32)
    with pytest.raises(NamedMaskError, match='do not fit resnet18'): timm_module.TimmFeatures('resnet18', file=tmp_path/'w.pth', supervision='nothing').features(x)
    with pytest.raises(NamedMaskError, match='pass supervision='): timm_module.TimmFeatures('resnet18', file=tmp_path/'w.pth')
    with pytest.raises(NamedMaskError, match='trained with masks'): timm_module.TimmFeatures('resnet18', file=tmp_path/'w.pth', supervision='masks')
    with pytest.raises(NamedMaskError, match='no model'): timm_module.TimmFeatures('resnet19')
    with pytest.raises(NamedMaskError, match='no keys'): timm_module.TimmFeatures('resnet18', source='key')
    def no_network(*a, **k): raise OSError('no route to host')
    monkeypatch.setattr(torch.hub, 'download_url_to_file', no_network)
    for f in sets.get_teachers('paper').features():
        with pytest.raises(NamedMaskError, match=r'(dino_deitsmall16_pretrain.pth|moco_v2_800ep_pretrain.pth.tar|swav_800ep_pretrain.pth.tar) from https://dl.fbaipublicfiles.com.* put it at'): f.features(x)
    with pytest.raises(NamedMaskError, match='dino_resnet50_pretrain.pth'): sets.get_teachers('paper').student_init('tu-resnet50')

def test_guessed_supervision():
    g = timm_module._guess_supervision
    assert (g('resnet50.a1_in1k'), g('vit_small_patch16_224.dino'), g('vit_base_patch16_clip_224.openai'), g('vit_base_patch16_clip_224.laion2b_ft_in1k')) == \
           ('image labels', 'nothing', 'image-text pairs', 'image-text pairs')

def test_keys_of_threads_that_share_a_network():
    from concurrent.futures import ThreadPoolExecutor
    from namedmask.mini.weights import mini_features
    f = mini_features().with_source('key')
    photos = np.random.default_rng(0).random((24, 1, 3, 32, 32), np.float32)
    alone = [f.features(p)['key'] for p in photos]
    with ThreadPoolExecutor(8) as pool: together = list(pool.map(lambda p: f.features(p)['key'], photos))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together))

# -- files that mean harm
def pickled(path, code, stored=True):
    "A file of weights whose pickle is `code`."
    import zipfile
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as z:
        for name, content in {'data.pkl': b'\x80\x02' + code + b'.', 'version': b'3\n', 'byteorder': b'little', **({} if stored else {'data/0': b'\0'*2**27})}.items():
            z.writestr(f'archive/{name}', content)

def safetensors(path, header, data=b'', length=None):
    import struct
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(header) if length is None else length) + header + data)

def harmful(folder):
    "{name: file}, of all that must end in a sentence."
    folder.mkdir()
    box, w, one = {}, torch.ones(1), dict(dtype='F32', shape=[1], data_offsets=[0, 4])
    box['model'] = box
    for name, found in {'cycle': box, 'int': {1: w}, 'tuple': {('a',): w}, 'nan': {'w': w*float('nan')}, 'inf': {'w': w/0}, 'stride': {'w': w.as_strided((10**12,), (0,))},
                        'sparse': {'w': w.to_sparse()}, 'meta': {'w': torch.empty(1, device='meta')}, 'complex': {'w': w.cfloat()}, 'list': [w], 'tensor': w, 'number': 5}.items():
        torch.save(found, folder/f'{name}.pt')
    pickled(folder/'deep_key.pt', b'}X\x01\0\0\0a' + b'\x85'*10**6 + b'K\x01s')
    pickled(folder/'deep_list.pt', b']'*100_001 + b'a'*100_000)
    pickled(folder/'blown_up.pt', b'}', stored=False)
    pickled(folder/'greedy.pt', b'cbuiltins\nbytearray\n\x8a\x07\0\0\0\0\0\0\x01\x85R')         # 2**48 bytes
    (folder/'empty.pt').write_bytes(b'')
    safetensors(folder/'json.safetensors', b'{abc}')
    safetensors(folder/'head.safetensors', {}, length=2**62)
    safetensors(folder/'shape.safetensors', {'w': dict(one, shape=[10**12])}, b'\0'*4)
    safetensors(folder/'offset.safetensors', {'w': dict(one, data_offsets=[4, 0])}, b'\0'*4)
    safetensors(folder/'deep.safetensors', b'{"w":' + b'['*100_000)
    safetensors(folder/'meta.safetensors', {'__metadata__': 5, 'w': one}, b'\0'*4)
    safetensors(folder/'nan.safetensors', {'w': one}, np.float32(np.nan).tobytes())
    return {f.stem + f.suffix: f for f in sorted(folder.iterdir())}

def test_harmful_weights_end_in_a_sentence(tmp_path):
    for name, file in harmful(tmp_path/'harm').items():
        with pytest.raises(NamedMaskError) as e: weights_module._load_state(file)
        assert '\n' not in str(e.value) and str(file) in str(e.value), (name, e.value)
    with pytest.raises(NamedMaskError, match='not enough memory to read the weights'): weights_module._load_state(tmp_path/'harm'/'greedy.pt')

@pytest.mark.parametrize('text', ['5', '[1]', '"names"', 'null', 'NaN', '{', '['*100_000])
def test_a_header_that_is_wrong_is_refused(tmp_path, text):
    safetensors(tmp_path/'a.safetensors', {'__metadata__': {'namedmask': text}, 'w': dict(dtype='F32', shape=[1], data_offsets=[0, 4])}, b'\0'*4)
    with pytest.raises(NamedMaskError, match='header of .*a.safetensors'): weights_module.read_header(tmp_path/'a.safetensors')
    assert weights_module._load_state(tmp_path/'a.safetensors') == {'w': torch.zeros(1)}

def test_a_good_header_and_none(tmp_path):
    for text, want in (('{"a": 1}', {'a': 1}), (None, {})):
        safetensors(tmp_path/'a.safetensors', {'__metadata__': {'namedmask': text} if text else {'format': 'pt'}, 'w': dict(dtype='F32', shape=[1], data_offsets=[0, 4])}, b'\0'*4)
        assert weights_module.read_header(tmp_path/'a.safetensors') == want
    with pytest.raises(NamedMaskError, match='There is no file'): weights_module.read_header(tmp_path/'none.safetensors')

@pytest.mark.parametrize('name', ['cycle.pt', 'intkeys.pt', 'st_badjson.safetensors', 'st_hugehdr.safetensors', 'st_shape.safetensors'])
def test_the_cases_of_weights(name):
    from helpers import shared
    file = shared('cases', 'hostile', name)
    if not file: pytest.skip('the shared cases are not here')
    with pytest.raises(NamedMaskError): weights_module._load_state(file)

def test_a_cache_that_cannot_be_written_names_its_variable(tmp_path, monkeypatch):
    "A file stands where the cache should be (permissions do not stop root)."
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('NAMEDMASK_CACHE', str(tmp_path/'file'))
    net = torch.nn.Conv2d(3, 1, 1).eval()
    with pytest.raises(NamedMaskError, match=f'Cannot write into the cache {tmp_path/"file"} .*set the variable NAMEDMASK_CACHE'): engine_module.onnx_session(net, torch.zeros(1, 3, 4, 4), 'k')
    with pytest.raises(NamedMaskError, match='NAMEDMASK_CACHE'): weights_module._download('file:///dev/null')
    assert (tmp_path/'file').read_text() == ''
    with pytest.raises(NamedMaskError, match='are not on this machine'): weights_module.find_weights('x', 'w.pth')

def test_engines_give_their_memory_back_and_answer_as_before(cache):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.ReLU()).eval()
    run, x = engine_module._runner(net, torch.zeros(1, 3, 4, 4), 'k', 'onnx'), np.random.default_rng(0).random((2, 3, 4, 4), np.float32)
    first = run(x)[0]
    engine_module.release_engines()
    assert run.session is None
    assert np.array_equal(run(x)[0], first) and run.session is not None
    assert run in engine_module._ENGINES
