"Published checkpoints: an independent network over the published names gives the same logits; anything else is refused by name."
import argparse, json, os
import numpy as np, pytest, torch
import torch.nn.functional as F
from PIL import Image
from namedmask.app.convert import (Misfit, class_names, convert, deeplab_layout, encoder_supervision, recognise, released_deeplab,
    resnet50_layout, selfmask_layout, vit_small_layout)
from namedmask.teachers.weights import read_header, read_weights, tensors_of
from namedmask.core import NamedMaskError
from namedmask.models.deeplab import deeplabv3plus
from namedmask.models.infer import forward
from namedmask.models.segmenter import load_segmenter

# ---------------------------------------------------------------- the published network, written out as functions of its state dict

BLOCKS = dict(layer1=(3, 64, 1, 1), layer2=(4, 128, 2, 1), layer3=(6, 256, 1, 2), layer4=(3, 512, 1, 4))  # blocks, width, stride, dilation: output stride 8

def published_state(n_classes, seed=0):
    "Random weights and batch-norm statistics under the names of VainF's DeepLabV3+ with separable convolutions."
    g, sd = torch.Generator().manual_seed(seed), {}
    def conv(name, o, i, k=1): sd[f'{name}.weight'] = torch.randn(o, i, k, k, generator=g)*(2/(i*k*k))**.5
    def bn(name, c):
        sd.update({f'{name}.weight': torch.rand(c, generator=g)*.4 + .4, f'{name}.bias': torch.randn(c, generator=g)*.1, f'{name}.running_mean': torch.randn(c, generator=g)*.1,
                   f'{name}.running_var': torch.rand(c, generator=g)*.5 + .75, f'{name}.num_batches_tracked': torch.tensor(20000)})
    conv('backbone.conv1', 64, 3, 7); bn('backbone.bn1', 64)
    c = 64
    for layer, (n, w, _, _) in BLOCKS.items():
        for b in range(n):
            p = f'backbone.{layer}.{b}'
            conv(f'{p}.conv1', w, c); bn(f'{p}.bn1', w); conv(f'{p}.conv2', w, w, 3); bn(f'{p}.bn2', w); conv(f'{p}.conv3', 4*w, w); bn(f'{p}.bn3', 4*w)
            if b == 0: conv(f'{p}.downsample.0', 4*w, c); bn(f'{p}.downsample.1', 4*w)
            c = 4*w
    conv('classifier.project.0', 48, 256); bn('classifier.project.1', 48)
    conv('classifier.aspp.convs.0.0', 256, 2048); bn('classifier.aspp.convs.0.1', 256)
    for i in (1, 2, 3): conv(f'classifier.aspp.convs.{i}.0.body.0', 2048, 1, 3); conv(f'classifier.aspp.convs.{i}.0.body.1', 256, 2048); bn(f'classifier.aspp.convs.{i}.1', 256)
    conv('classifier.aspp.convs.4.1', 256, 2048); bn('classifier.aspp.convs.4.2', 256)
    conv('classifier.aspp.project.0', 256, 1280); bn('classifier.aspp.project.1', 256)
    conv('classifier.classifier.0.body.0', 304, 1, 3); conv('classifier.classifier.0.body.1', 256, 304); bn('classifier.classifier.1', 256)
    conv('classifier.classifier.3', n_classes, 256); sd['classifier.classifier.3.bias'] = torch.randn(n_classes, generator=g)
    return sd

@torch.no_grad()
def published_logits(sd, x):
    "What the published network computes, step by step."
    conv = lambda name, x, s=1, p=0, d=1, g=1: F.conv2d(x, sd[f'{name}.weight'], sd.get(f'{name}.bias'), s, p, d, g)
    bn = lambda name, x: F.batch_norm(x, *(sd[f'{name}.{o}'] for o in ('running_mean', 'running_var', 'weight', 'bias')))
    up = lambda x, size: F.interpolate(x, size, mode='bilinear', align_corners=False)
    y = F.max_pool2d(F.relu(bn('backbone.bn1', conv('backbone.conv1', x, 2, 3))), 3, 2, 1)
    maps, before = {}, 1
    for layer, (n, _, stride, dilation) in BLOCKS.items():
        for b in range(n):
            p, s, d = f'backbone.{layer}.{b}', stride if b == 0 else 1, before if b == 0 else dilation    # the first block still has the dilation of the layer before
            z = F.relu(bn(f'{p}.bn1', conv(f'{p}.conv1', y)))
            z = F.relu(bn(f'{p}.bn2', conv(f'{p}.conv2', z, s, d, d)))
            z = bn(f'{p}.bn3', conv(f'{p}.conv3', z))
            y = F.relu(z + (bn(f'{p}.downsample.1', conv(f'{p}.downsample.0', y, s)) if b == 0 else y))
        maps[layer], before = y, dilation
    low, high, h = F.relu(bn('classifier.project.1', conv('classifier.project.0', maps['layer1']))), maps['layer4'], 'classifier.aspp'
    seen = [F.relu(bn(f'{h}.convs.0.1', conv(f'{h}.convs.0.0', high)))]
    for i, d in ((1, 12), (2, 24), (3, 36)):
        seen.append(F.relu(bn(f'{h}.convs.{i}.1', conv(f'{h}.convs.{i}.0.body.1', conv(f'{h}.convs.{i}.0.body.0', high, 1, d, d, 2048)))))
    pooled = F.relu(bn(f'{h}.convs.4.2', conv(f'{h}.convs.4.1', high.mean((2, 3), keepdim=True))))
    a = F.relu(bn(f'{h}.project.1', conv(f'{h}.project.0', torch.cat([*seen, up(pooled, high.shape[-2:])], 1))))
    y = torch.cat([low, up(a, low.shape[-2:])], 1)
    y = F.relu(bn('classifier.classifier.1', conv('classifier.classifier.0.body.1', conv('classifier.classifier.0.body.0', y, 1, 1, 1, 304))))
    return up(conv('classifier.classifier.3', y), x.shape[-2:])

@pytest.fixture(scope='module')
def official(tmp_path_factory):
    path = tmp_path_factory.mktemp('official')/'official.pt'
    torch.save(published_state(21), path)
    return path

NAMES, SAID = [f'name {i}' for i in range(20)], dict(supervision='image-text pairs')

# ---------------------------------------------------------------- logits

@pytest.mark.parametrize('size', [(96, 128), (75, 110)])
def test_the_converted_network_is_the_published_one(size):
    sd = published_state(21)
    x = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
    theirs = published_logits(sd, x)
    with torch.no_grad(): ours = released_deeplab(sd)(x)
    assert ours.shape == (1, 21, *size) and theirs.std() > .1
    assert (ours - theirs).abs().max() <= 1e-4

def test_the_ordinary_decoder_would_not_do():
    "The check can fail: with first blocks dilated as their layers, or batch norms at their start, logits move by more than 1e-4."
    sd = published_state(3)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    net = released_deeplab(sd)
    with torch.no_grad():
        right = net(x)
        conv = net.encoder.model.layer4[0].conv2
        assert conv.dilation == (2, 2)
        conv.dilation = conv.padding = (4, 4)
        assert (net(x) - right).abs().max() > 1e-3
        conv.dilation = conv.padding = (2, 2)
        net.head.merge[1].running_mean.zero_()
        assert (net(x) - right).abs().max() > 1e-3

def test_photos_run_at_their_own_size(official, tmp_path):
    "Through the file and `forward`: no padding, no resizing, ImageNet's mean and deviation."
    convert(official, tmp_path/'net.safetensors', NAMES, **SAID)
    s = load_segmenter(tmp_path/'net.safetensors')
    im = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8))
    x = torch.from_numpy(np.asarray(im)/255.).float().permute(2, 0, 1)[None]
    x = (x - torch.tensor([.485, .456, .406]).view(3, 1, 1))/torch.tensor([.229, .224, .225]).view(3, 1, 1)
    theirs = published_logits(published_state(21), x)[0]
    assert (forward(s.model, im) - theirs).abs().max() <= 1e-4
    assert (s.segment(im)[0] == theirs.argmax(0).numpy()).mean() > .999

# ---------------------------------------------------------------- files

def test_a_folder_and_a_file_hold_the_same_segmenter(official, tmp_path):
    released = tmp_path/'namedmask_voc2012.pt'; released.symlink_to(official)
    folder, file = convert(released, tmp_path/'net', NAMES), convert(released, tmp_path/'net.safetensors', NAMES)
    assert {k: v for k, v in folder.items()} == file
    a, b = load_segmenter(tmp_path/'net'), load_segmenter(tmp_path/'net.safetensors')
    assert a.names == b.names == NAMES and a.meta['source']['file'] == 'namedmask_voc2012.pt' and a.meta['side'] is None
    assert all(torch.equal(v, b.model.state_dict()[k]) for k, v in a.model.state_dict().items())
    levels = {c['name']: c['supervision'] for c in b.meta['supervision']}
    assert levels['NamedMask, as released'] == levels['CLIP ViT-L/14@336'] == 'image-text pairs' and levels['SelfMask, as released'] == 'nothing'

def test_predict_takes_both(official, tmp_path, capsys):
    from namedmask import cli
    from namedmask.data.draw import load_labels
    from namedmask.data.masks import save_image
    from namedmask.data.toy import toy_scene
    save_image(tmp_path/'photo.jpg', toy_scene(0, size=80)[0])
    assert cli.main(['convert', str(official), str(tmp_path/'net'), '--names', ','.join(NAMES), '--supervision', 'image-text pairs']) == 0
    assert 'image-text pairs' in capsys.readouterr().out
    assert cli.main(['convert', str(official), str(tmp_path/'net.safetensors'), '--names', ','.join(NAMES), '--supervision', 'image-text pairs']) == 0
    for i, net in enumerate(('net', 'net.safetensors')):
        assert cli.main(['predict', str(tmp_path/net), str(tmp_path/'photo.jpg'), '--out', str(tmp_path/f'out{i}'), '--quiet']) == 0
    a, b = (load_labels(tmp_path/f'out{i}'/'labels'/'photo.png') for i in (0, 1))
    assert (a == b).all() and a.shape == (80, 80)

def test_wrapped_in_data_parallel_and_half_precision(tmp_path):
    sd = published_state(2, seed=1)
    torch.save({'state_dict': {f'module.{k}': v.half() if v.is_floating_point() else v for k, v in sd.items()}, 'epoch': 3}, tmp_path/'expert_cat.pt')
    meta = convert(tmp_path/'expert_cat.pt', tmp_path/'expert', 'cat')
    assert meta['names'] == ['cat'] and meta['model']['n_classes'] == 2
    assert all(p.dtype == torch.float32 for p in load_segmenter(tmp_path/'expert').model.parameters())

# ---------------------------------------------------------------- layouts

def empty(layout, prefix='', **more): return {f'{prefix}{k}': torch.empty(s, device='meta') for k, s in {**layout, **more}.items()}

def test_layouts_are_those_of_timm():
    import timm
    with torch.device('meta'):
        for name, layout, skip in (('resnet50', resnet50_layout(), 'fc.'), ('vit_small_patch16_224', vit_small_layout(16), 'head.'), ('vit_small_patch8_224', vit_small_layout(8), 'head.')):
            own = {k: tuple(v.shape) for k, v in timm.create_model(name).state_dict().items() if not k.startswith(skip) and 'num_batches' not in k}
            assert own == layout

def test_the_deeplab_layout_is_the_published_one():
    assert {k: tuple(v.shape) for k, v in published_state(15).items() if 'num_batches' not in k} == deeplab_layout(15)

@pytest.mark.parametrize('found, name, prefix', [
    (empty(deeplab_layout(81)), "NamedMask's DeepLabV3+", ''),
    (empty(deeplab_layout(2), 'module.'), "NamedMask's DeepLabV3+", 'module.'),
    (empty(selfmask_layout(20)), 'SelfMask', ''),
    ({'model': empty(selfmask_layout(10)), 'epoch': 11}, 'SelfMask', ''),
    (empty(resnet50_layout()), 'ResNet-50', ''),
    ({'state_dict': empty(resnet50_layout(), 'module.encoder_q.', **{'fc.0.weight': (2048, 2048), 'fc.0.bias': (2048,), 'fc.2.weight': (128, 2048)}), 'arch': 'resnet50'}, 'ResNet-50', 'module.encoder_q.'),
    (empty(resnet50_layout(), 'module.', **{'projection_head.0.weight': (2048, 2048), 'prototypes.weight': (3000, 128)}), 'ResNet-50', 'module.'),
    ({'student': {}, 'teacher': empty(vit_small_layout(8), 'backbone.') | {'head.mlp.0.weight': torch.empty(1)}}, 'ViT-S/8', 'backbone.'),
    (empty(vit_small_layout(16)), 'ViT-S/16', '')])
def test_each_published_layout_is_recognised(found, name, prefix):
    fit = recognise(tensors_of(found)[0])
    assert (fit.layout.name, fit.prefix, fit.missing, fit.unexpected, fit.shapes) == (name, prefix, [], [], [])

@pytest.mark.parametrize('layout', [deeplab_layout(21), selfmask_layout(20), resnet50_layout(), vit_small_layout(8), vit_small_layout(16)])
def test_one_tensor_more_less_or_other_is_refused_by_name(layout):
    names = list(layout)
    k = names[len(names)//2]
    for change, kind, words in ((lambda s: s.pop(k), 'missing', k), (lambda s: s.update(odd=torch.empty(1)), 'unexpected', 'odd'), (lambda s: s.update({k: torch.empty(7, 9)}), 'shapes', f'{k} (7, 9), not {layout[k]}')):
        state = empty(layout)
        change(state)
        with pytest.raises(Misfit) as e: recognise(state, 'x.pt')
        assert getattr(e.value.fit, kind) == [words] and words in str(e.value) and e.value.fit.wrong == 1

def test_other_networks_are_refused(tmp_path):
    import torchvision
    with torch.device('meta'): other = torchvision.models.resnet18().state_dict()
    with pytest.raises(Misfit, match='missing') as e: recognise(other, 'r18.pt')
    assert len(e.value.fit.missing) > 100 and len(str(e.value)) < 1500          # all the names are in .fit, the sentence has the first
    with pytest.raises(Misfit, match='none of the known layouts'): recognise({'a.weight': torch.empty(1)})
    with pytest.raises(Misfit): recognise({})
    torch.save({'a': torch.ones(1)}, tmp_path/'a.pt')
    with pytest.raises(NamedMaskError): convert(tmp_path/'a.pt', tmp_path/'out')
    assert not (tmp_path/'out').exists()

def test_a_head_without_separable_convolutions_is_another_network():
    state = empty(deeplab_layout(21))
    for k in [k for k in state if '.body.' in k]: del state[k]
    state |= {f'classifier.aspp.convs.{i}.0.weight': torch.empty(256, 2048, 3, 3, device='meta') for i in (1, 2, 3)}
    with pytest.raises(Misfit, match='8 missing') as e: recognise(state)
    assert len(e.value.fit.unexpected) == 3

# ---------------------------------------------------------------- what may be read

class Evil:
    def __init__(self, flag): self.flag = str(flag)
    def __reduce__(self): return os.system, (f'touch {self.flag}',)

def test_nothing_in_a_file_runs(tmp_path):
    for legacy in (False, True):
        torch.save({'w': torch.ones(1), 'x': Evil(tmp_path/'ran')}, tmp_path/'evil.pt', _use_new_zipfile_serialization=not legacy)
        with pytest.raises(NamedMaskError, match='more than weights'): read_weights(tmp_path/'evil.pt')
    assert not (tmp_path/'ran').exists()

def test_options_of_a_training_are_let_in_and_left(tmp_path):
    torch.save({'teacher': {'w': torch.ones(1)}, 'args': argparse.Namespace(arch='vit_small', lr=.1)}, tmp_path/'dino.pth')
    assert tensors_of(read_weights(tmp_path/'dino.pth')) == ({'w': torch.ones(1)}, ['teacher'])

def test_damaged_and_odd_files(tmp_path):
    torch.save({'w': torch.ones(100)}, tmp_path/'whole.pt')
    (tmp_path/'cut.pt').write_bytes((tmp_path/'whole.pt').read_bytes()[:400])
    (tmp_path/'text.pt').write_text('<html>not found</html>')
    (tmp_path/'odd.safetensors').write_bytes(b'12345678901')
    torch.save(torch.ones(2), tmp_path/'tensor.pt')
    for name in ('cut.pt', 'text.pt', 'odd.safetensors', 'tensor.pt', 'absent.pt'):
        with pytest.raises(NamedMaskError) as e: read_weights(tmp_path/name)
        assert '\n' not in str(e.value) and name in str(e.value)

# ---------------------------------------------------------------- names and supervision

def test_names_must_fit(official, tmp_path):
    assert class_names(3, 'cat,dog=puppy|hound') == ['cat', 'dog']
    for kw, words in ((dict(), '20 of them'), (dict(names='cat'), '1 names'), (dict(names='cat,cat'), 'twice')):
        with pytest.raises(NamedMaskError, match=words): convert(official, tmp_path/'x', **kw)

def test_a_published_name_tells_the_benchmark(official, tmp_path):
    recipes = pytest.importorskip('namedmask.evaluate.recipes')
    (tmp_path/'namedmask_voc2012.pt').symlink_to(official)
    assert convert(tmp_path/'namedmask_voc2012.pt', tmp_path/'a.safetensors')['names'] == list(recipes.recipe('voc2012').names)
    assert convert(official, tmp_path/'a.safetensors', benchmark='voc2012', **SAID)['names'][0] == 'aeroplane'
    for n, b in ((15, 'cityscapes_object'), (51, 'imagenet_s50'), (81, 'coca')): assert len(class_names(n, benchmark=b)) == n - 1
    with pytest.raises(NamedMaskError, match='20 names: it needs 80'): class_names(81, benchmark='voc2012')

def test_more_classes_than_eight_bits_hold(tmp_path):
    "ImageNet-S has 300 and 919 names; the labels become 16-bit pictures."
    from namedmask.data.draw import load_labels; from namedmask.data.masks import save_image; from namedmask.data.toy import toy_scene
    from namedmask.app.predict import predict_paths
    sd = published_state(301)
    sd['classifier.classifier.3.bias'][299] += 100
    torch.save(sd, tmp_path/'s300.pt')
    convert(tmp_path/'s300.pt', tmp_path/'net', [f'n{i}' for i in range(1, 301)], **SAID)
    save_image(tmp_path/'photo.jpg', toy_scene(0, size=64)[0])
    found = predict_paths(load_segmenter(tmp_path/'net'), tmp_path/'photo.jpg', tmp_path/'out', quiet=True)
    labels = load_labels(tmp_path/'out'/'labels'/'photo.png')
    assert labels.dtype == np.uint16 and (labels == 299).all() and found['new'] == 1

def test_an_encoder_says_what_it_learnt_from(tmp_path):
    zeros = {k: torch.zeros(s) for k, s in resnet50_layout().items()}
    torch.save(zeros, tmp_path/'plain.pth'); torch.save(zeros, tmp_path/'dino_resnet50_pretrain.pth')
    torch.save({**zeros, 'fc.weight': torch.zeros(1000, 2048), 'fc.bias': torch.zeros(1000)}, tmp_path/'labels.pth')
    with pytest.raises(NamedMaskError, match='supervision'): convert(tmp_path/'plain.pth', tmp_path/'a.safetensors')
    with pytest.raises(NamedMaskError, match='unknown'): convert(tmp_path/'plain.pth', tmp_path/'a.safetensors', supervision='magic')
    with pytest.raises(NamedMaskError, match='.safetensors'): convert(tmp_path/'plain.pth', tmp_path/'folder', supervision='nothing')
    card = lambda name, **kw: convert(tmp_path/name, tmp_path/'a.safetensors', **kw)['supervision'][0]['supervision']
    assert card('plain.pth', supervision='nothing') == 'nothing' and card('dino_resnet50_pretrain.pth') == 'nothing' and card('labels.pth') == 'image labels'
    assert read_header(tmp_path/'a.safetensors')['encoder'] == 'resnet50'

def test_a_classifier_counts_more_than_names(tmp_path):
    zeros = {k: torch.zeros(s) for k, s in resnet50_layout().items()}
    labelled = {**zeros, 'fc.weight': torch.zeros(1000, 2048), 'fc.bias': torch.zeros(1000)}
    for name, found in (('a.pth', {'student': labelled}), ('b.pth', {'teacher': {f'module.{k}': v for k, v in labelled.items()}}), ('dino_resnet50_pretrain.pth', labelled)):
        torch.save(found, tmp_path/name)
        assert convert(tmp_path/name, tmp_path/'x.safetensors')['supervision'][0]['supervision'] == 'image labels'
        for less in ('nothing', 'image-text pairs'):
            with pytest.raises(NamedMaskError, match='says less'): convert(tmp_path/name, tmp_path/'y.safetensors', supervision=less)
    torch.save({'student': zeros}, tmp_path/'c.pth')
    assert convert(tmp_path/'c.pth', tmp_path/'x.safetensors')['supervision'][0]['supervision'] == 'nothing'
    said = convert(tmp_path/'c.pth', tmp_path/'x.safetensors', supervision='masks')['supervision'][0]      # more than it shows may be said
    assert said['supervision'] == 'masks' and not (tmp_path/'y.safetensors').exists()

def test_released_is_what_has_a_published_name(official, tmp_path):
    with pytest.raises(NamedMaskError, match='--supervision'): convert(official, tmp_path/'a.safetensors', NAMES)
    for level in ('image labels', 'masks'):
        assert [(c['name'], c['supervision']) for c in convert(official, tmp_path/'a.safetensors', NAMES, supervision=level)['supervision']] == [('DeepLabV3+ of the published layout', level)]
    (tmp_path/'namedmask_coca.pt').symlink_to(official)
    with pytest.raises(NamedMaskError, match='says less'): convert(tmp_path/'namedmask_coca.pt', tmp_path/'b.safetensors', NAMES, supervision='nothing')
    assert not (tmp_path/'b.safetensors').exists()
    torch.save({k: torch.zeros(s) for k, s in selfmask_layout(20).items()}, tmp_path/'mine.pt')
    with pytest.raises(NamedMaskError, match='--supervision'): convert(tmp_path/'mine.pt', tmp_path/'b.safetensors')
    assert convert(tmp_path/'mine.pt', tmp_path/'b.safetensors', supervision='masks')['supervision'][0]['name'] == 'SelfMask, from a file'

def test_a_converted_encoder_starts_a_student_and_a_teacher(tmp_path):
    from namedmask.teachers.timm import TimmFeatures
    g = torch.Generator().manual_seed(0)
    state = {k: torch.rand(s, generator=g)*.1 + .01 for k, s in resnet50_layout().items()}
    torch.save({f'module.{k}': v for k, v in state.items()} | {'module.prototypes.weight': torch.zeros(3, 128)}, tmp_path/'swav.pth.tar')
    convert(tmp_path/'swav.pth.tar', tmp_path/'swav.safetensors')
    init = read_weights(tmp_path/'swav.safetensors')
    net = deeplabv3plus('resnet50', 3, 8, init=init, head='paper')
    assert torch.equal(net.encoder.model.layer4[2].conv3.weight, state['layer4.2.conv3.weight'])
    feats = TimmFeatures('resnet50', file=tmp_path/'swav.safetensors', supervision='nothing', stride=8)
    assert torch.equal(feats._load().layer1[0].bn2.running_var, state['layer1.0.bn2.running_var'])

def test_selfmask_becomes_one_file(tmp_path):
    g = torch.Generator().manual_seed(0)
    state = {k: torch.randn(s, generator=g)*.02 for k, s in selfmask_layout(10).items()}
    torch.save({'model': state}, tmp_path/'selfmask_nq10.pt')
    with pytest.raises(NamedMaskError, match='one file'): convert(tmp_path/'selfmask_nq10.pt', tmp_path/'folder')
    meta = convert(tmp_path/'selfmask_nq10.pt', tmp_path/'s.safetensors')
    assert meta['kind'] == 'saliency' and meta['queries'] == 10 and {c['supervision'] for c in meta['supervision']} == {'nothing'}
    back = read_weights(tmp_path/'s.safetensors')
    assert back.keys() == state.keys() and all(torch.equal(back[k], v) for k, v in state.items())
    with pytest.raises(NamedMaskError, match='no segmenter'): load_segmenter(tmp_path/'s.safetensors')
    selfmask = pytest.importorskip('namedmask.stages.predictor')                     # its loader takes the file as it is
    assert [c.as_dict() for c in selfmask.load_selfmask(tmp_path/'s.safetensors').cards] == meta['supervision']

# ---------------------------------------------------------------- the decoder itself

def test_the_papers_decoder_trains_and_keeps(tmp_path):
    from namedmask.models.segmenter import save_segmenter
    net = deeplabv3plus('resnet18', 3, 8, head='paper')
    net(torch.randn(3, 3, 33, 47)).square().mean().backward()
    assert all(p.grad.abs().sum() > 0 for p in [*net.head.parameters(), net.encoder.model.conv1.weight])
    same, other = deeplabv3plus('resnet18', 3, 8, head='paper').state_dict(), deeplabv3plus('resnet18', 3, 8, head='paper', seed=1).state_dict()
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in same.items() if 'running' not in k and 'tracked' not in k) and not torch.equal(same['head.low.0.weight'], other['head.low.0.weight'])
    save_segmenter(tmp_path/'net', net.eval(), dict(names=['a', 'b']))
    back, x = load_segmenter(tmp_path/'net'), torch.randn(1, 3, 50, 70)
    with torch.no_grad(): assert torch.allclose(back.model(x), net(x), atol=1e-5)     # a loaded network is channels-last
    assert 'head' not in deeplabv3plus('resnet18', 3).spec                    # segmenters of before say nothing of it
    with pytest.raises(NamedMaskError, match='decoder'): deeplabv3plus('resnet18', 3, head='vainf')

# ---------------------------------------------------------------- where the result goes, and files that mean harm

def tree(folder): return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob('*')) if f.is_file()}

def test_a_folder_that_is_not_ours_is_refused_before_anything_is_read(tmp_path):
    (tmp_path/'photos').mkdir(); (tmp_path/'photos'/'a.jpg').write_bytes(b'mine')
    with pytest.raises(NamedMaskError, match='not empty and was not made by namedmask.*a.jpg'): convert(tmp_path/'nowhere.pt', tmp_path/'photos', NAMES)
    assert tree(tmp_path) == {'photos/a.jpg': b'mine'}

def test_a_file_that_is_not_ours_is_refused_before_anything_is_read(tmp_path, official):
    from safetensors.torch import save_file
    save_file({'w': torch.ones(1)}, tmp_path/'theirs.safetensors')
    (tmp_path/'text.safetensors').write_bytes(b'mine'); (tmp_path/'folder.safetensors').mkdir()
    before = tree(tmp_path)
    for name in ('theirs.safetensors', 'text.safetensors'):
        with pytest.raises(NamedMaskError, match=f'{name} is in the way'): convert(tmp_path/'nowhere.pt', tmp_path/name, NAMES)
    with pytest.raises(NamedMaskError, match='is a folder'): convert(tmp_path/'nowhere.pt', tmp_path/'folder.safetensors', NAMES)
    with pytest.raises(NamedMaskError, match='is the file that is to be converted'): convert(tmp_path/'theirs.safetensors', tmp_path/'theirs.safetensors', NAMES)
    assert tree(tmp_path) == before

def test_what_was_converted_before_is_converted_again(tmp_path, official):
    for out in (tmp_path/'net', tmp_path/'net.safetensors'):
        first, second = (convert(official, out, NAMES, supervision='nothing') for _ in range(2))
        assert first == second and load_segmenter(out).names == first['names']

def test_harmful_files_end_in_a_sentence(tmp_path):
    from test_teachers import harmful
    for name, file in harmful(tmp_path/'harm').items():
        with pytest.raises(NamedMaskError) as e: convert(file, tmp_path/'out', supervision='nothing')
        assert '\n' not in str(e.value) and str(file) in str(e.value), name
        if file.suffix == '.safetensors':
            with pytest.raises(NamedMaskError): load_segmenter(file)
    assert not (tmp_path/'out').exists()

def test_weights_that_are_not_finite_are_not_converted(tmp_path):
    for bad in (float('nan'), float('inf')):
        state = published_state(3)
        state['backbone.conv1.weight'][0, 0, 0, 0] = bad
        torch.save(state, tmp_path/'a.pt')
        with pytest.raises(NamedMaskError, match='backbone.conv1.weight.*not finite'): convert(tmp_path/'a.pt', tmp_path/'out', 'cat,dog', supervision='nothing')
