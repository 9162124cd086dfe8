"A Sphinx extension: a public name in backticks becomes a link to its place in the reference."
import re
from collections import defaultdict
from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

def known_names(env):
    "Each way to write a public name -> its entry, where only one is meant."
    ways = defaultdict(set)
    for full, entry in env.domaindata['py']['objects'].items():
        parts = full.split('.')
        for i in range(len(parts)): ways['.'.join(parts[i:])].add((entry.docname, entry.node_id))
    return {way: next(iter(places)) for way, places in ways.items() if len(places) == 1}

class LinkNames(SphinxPostTransform):
    default_priority = 5

    def run(self, **kwargs):
        if not hasattr(self.env, 'namedmask_names'): self.env.namedmask_names = known_names(self.env)
        for literal in list(self.document.findall(nodes.literal)):
            text = literal.astext()
            name = text.removesuffix('()')
            is_word = text == name and re.fullmatch(r'[a-z]+', name)
            place = None if is_word else self.env.namedmask_names.get(name)
            if place is None or isinstance(literal.parent, nodes.reference): continue
            uri = self.app.builder.get_relative_uri(self.env.docname, place[0]) + '#' + place[1]
            link = nodes.reference('', '', internal=True, refuri=uri, classes=['name'])
            literal.replace_self(link)
            link += literal

def setup(app):
    app.add_post_transform(LinkNames)
    return {'parallel_read_safe': True, 'parallel_write_safe': True}
