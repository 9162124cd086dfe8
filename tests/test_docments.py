"Every public name says what it is and what its parameters are, as the reference of the site reads them."
import ast, re, sys
from importlib import import_module
import pytest
from helpers import ROOT

sys.path.insert(0, str(ROOT/'.ci'/'site'))
import reference

# What a framework calls by itself, and documents: fastai's events, torch's forward, both directions of a transform
HOOK = re.compile(r'(before|after)_\w+|forward|encodes|decodes|setups')

def is_public(node): return not node.name.startswith('_')

def is_inherited(module, cls, method):
    "Does a class above have the method? It is explained there."
    return any(method in above.__dict__ for above in getattr(import_module(module), cls).__mro__[1:])

def methods_of(source, cls):
    "A public class's public methods that are its own idea, and how it is made."
    for node in filter(reference.is_function, cls.body):
        if node.name == '__init__': yield node
        elif is_public(node) and not HOOK.fullmatch(node.name) and not is_inherited(source.name, cls.name, node.name):
            yield node

def functions_of(source):
    "{name: function} of all that a user may call."
    told = {}
    for node in filter(is_public, filter(lambda n: hasattr(n, 'name'), source.tree.body)):
        owner = reference.is_function(node) and reference.patched(node)
        if reference.is_function(node): told[f'{owner}.{node.name}' if owner else node.name] = node
        else: told |= {f'{node.name}.{method.name}': method for method in methods_of(source, node)}
    return told

def is_explained(source, fn):
    "By a docstring, or a comment on its first line; how a class is made stands in the class."
    return fn.name == '__init__' or reference.doc_of(fn) or fn.lineno in source.told

def without_comment(source, fn):
    return [arg.arg for star, arg, _ in reference.parameters(fn) if not star and not source.beside(arg)]

SOURCES = {source.name: source for source in reference.sources(ROOT)}

@pytest.mark.parametrize('name', SOURCES)
def test_every_public_name_is_explained(name):
    source = SOURCES[name]
    silent = [node.name for node in source.tree.body
              if isinstance(node, ast.ClassDef) and is_public(node) and not reference.doc_of(node)]
    silent += [called for called, fn in functions_of(source).items() if not is_explained(source, fn)]
    assert silent == []

@pytest.mark.parametrize('name', SOURCES)
def test_every_parameter_has_a_comment(name):
    source = SOURCES[name]
    left = {called: without_comment(source, fn) for called, fn in functions_of(source).items()}
    assert {called: args for called, args in left.items() if args} == {}

def test_what_is_missing_is_seen(tmp_path):
    (tmp_path/'m.py').write_text('def f(a, b): # both\n    "What."\ndef g(a,\n  b, # second\n  ): pass\n')
    source = reference.Source(tmp_path/'m.py', 'm')
    f, g = source.tree.body
    assert (is_explained(source, f), without_comment(source, f)) == ('What.', [])
    assert not is_explained(source, g) and without_comment(source, g) == ['a']
