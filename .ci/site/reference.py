"The reference of every public name, read from the source: nothing is imported, so torch is not needed."
import ast, inspect, io, re, tokenize
from pathlib import Path

def comments_of(text):
    "Line number -> comment, and the lines on which nothing else stands."
    told, alone = {}, set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT: continue
        told[token.start[0]] = token.string.lstrip('# ').strip()
        if not token.line[:token.start[1]].strip(): alone.add(token.start[0])
    return told, alone

class Source:
    "A module's syntax tree with its comments."
    def __init__(self, path, name):
        self.name, self.text = name, Path(path).read_text(encoding='utf-8')
        text = self.text
        self.tree, (self.told, self.alone) = ast.parse(text), comments_of(text)
        doc = inspect.cleandoc(ast.get_docstring(self.tree) or '')
        self.doc = re.sub(r'\s*^Docs: \S+$', '', doc, flags=re.M).strip()
        self.public = self.names_in_all()

    def names_in_all(self):
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
                return ast.literal_eval(node.value)
        return []

    def beside(self, node):
        "The comment behind a parameter or field, and those above it that belong to it (docments)."
        lines, above = [], node.lineno - 1
        while above in self.alone:
            lines.insert(0, self.told[above])
            above -= 1
        behind = self.told.get(node.end_lineno) or self.told.get(node.lineno)
        return ' '.join([*lines, behind] if behind else lines)

def code(text):
    "Code in a cell of a table."
    return '`' + ' '.join(text.split()).replace('|', r'\|') + '`' if text else ''

def in_cell(text): return text.replace('|', r'\|').replace('<', '&lt;')

def table(head, rows):
    "A Markdown table without the columns that are empty."
    used = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]
    line = lambda cells: '| ' + ' | '.join(cells[i] for i in used) + ' |'
    return '\n'.join([line(head), line(['---']*len(head)), *map(line, rows)])

def parameters(fn):
    "Each parameter of a function with its default, `self` aside."
    args = fn.args
    placed = args.posonlyargs + args.args
    defaults = [None]*(len(placed) - len(args.defaults)) + args.defaults
    rows = [('', arg, default) for arg, default in zip(placed, defaults)]
    if args.vararg: rows.append(('*', args.vararg, None))
    rows += [('', arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults)]
    if args.kwarg: rows.append(('**', args.kwarg, None))
    return [row for row in rows if row[1].arg not in ('self', 'cls')]

def signature(fn):
    "Names and defaults; types stand in the table."
    each, bare_star = [], bool(fn.args.kwonlyargs and not fn.args.vararg)
    for star, arg, default in parameters(fn):
        if bare_star and arg is fn.args.kwonlyargs[0]: each.append('*')
        each.append(star + arg.arg + (f'={ast.unparse(default)}' if default is not None else ''))
    returned = f' -> {ast.unparse(fn.returns)}' if fn.returns else ''
    return f"({', '.join(each)}){returned}"

def shared_lines(fn):
    "Lines on which several parameters, or one and what comes back, stand: a comment there is of none alone."
    lines = [arg.end_lineno for _, arg, _ in parameters(fn)] + ([fn.returns.end_lineno] if fn.returns else [])
    return {line for line in lines if lines.count(line) > 1}

def shared_comments(source, fn):
    "What is said of the parameters of such lines, together."
    for line in sorted(shared_lines(fn) & set(source.told)):
        names = [code(star + arg.arg) for star, arg, _ in parameters(fn) if arg.end_lineno == line]
        if names: yield f"{', '.join(names)}: {source.told[line]}"

def parameter_table(source, fn):
    "What is to be known of each parameter and of what comes back."
    shared = shared_lines(fn)
    comment = lambda arg: '' if arg.end_lineno in shared else in_cell(source.beside(arg))
    rows = [(code(star + arg.arg), code(ast.unparse(arg.annotation)) if arg.annotation else '',
             code(ast.unparse(default)) if default is not None else '', comment(arg))
            for star, arg, default in parameters(fn)]
    back = source.told.get(fn.returns.end_lineno) if fn.returns and fn.returns.end_lineno not in shared else None
    if back: rows.append(('*returns*', code(ast.unparse(fn.returns)), '', in_cell(back)))
    told = table(('parameter', 'type', 'default', ''), rows) if any(row[1] or row[3] for row in rows) else ''
    return '\n\n'.join([*shared_comments(source, fn), told])

def is_field(node): return isinstance(node, ast.AnnAssign) and not node.target.id.startswith('_')

def field_default(node):
    "The default of a field; of `setting(default, ...)` and its kind the first argument."
    if node.value is None: return ''
    if isinstance(node.value, ast.Call) and node.value.args: return code(ast.unparse(node.value.args[0]))
    return code(ast.unparse(node.value))

def field_table(source, cls):
    rows = [(code(node.target.id), code(ast.unparse(node.annotation)), field_default(node),
             in_cell(source.beside(node))) for node in cls.body if is_field(node)]
    return table(('field', 'type', 'default', ''), rows) if rows else ''

def decorators(fn): return [ast.unparse(d) for d in fn.decorator_list]

def is_property(fn): return any('property' in d or 'as_prop' in d for d in decorators(fn))

def patched(fn):
    "The class that a function is patched into, or None."
    if not any(d.startswith('patch') for d in decorators(fn)): return None
    first = (fn.args.args or [None])[0]
    return first and first.annotation and ast.unparse(first.annotation)

def is_function(node): return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))

def doc_of(node): return inspect.cleandoc(ast.get_docstring(node) or '')

def explained(source, fn):
    "A function's docstring; one of a line has a comment instead, if nothing else stands for it."
    doc = doc_of(fn)
    if doc or parameters(fn) or (fn.returns and not is_property(fn)): return doc
    return source.told.get(fn.lineno, '')

def directive(kind, head, body, ticks=3, options=()):
    "A MyST directive of Sphinx's Python domain."
    fence = '`'*ticks
    lines = [f'{fence}{{py:{kind}}} {head}', *options, '', *body, fence]
    return '\n'.join(line for line in lines if line is not None)

def function(source, fn, kind='function', prefix='', options=()):
    "The entry of a function or a method."
    marks = decorators(fn)
    if is_property(fn):
        typed = [*options, f':type: {ast.unparse(fn.returns)}'] if fn.returns else options
        return directive('property', prefix + fn.name, [explained(source, fn)], options=typed)
    kind = {'classmethod': 'classmethod', 'staticmethod': 'staticmethod'}.get((marks or [''])[0], kind)
    body = [explained(source, fn), '', parameter_table(source, fn)]
    return directive(kind, prefix + fn.name + signature(fn), body, options=options)

def klass(source, cls, patches):
    "The entry of a class: how it is made, its fields, its public methods."
    methods = [m for m in cls.body if is_function(m)]
    init = next((m for m in methods if m.name == '__init__'), None)
    bases = [ast.unparse(base) for base in cls.bases]
    fields = field_table(source, cls)
    made = signature(init).split(' -> ')[0] if init else ''
    body = [doc_of(cls), '', f"Bases: {', '.join(map(code, bases))}" if bases else '', '', fields, '',
            parameter_table(source, init) if init else '', '']
    shown = [m for m in methods + patches if not m.name.startswith('_') or (m.name == '__call__' and doc_of(m))]
    for i, m in enumerate(shown):
        again = any(m.name == before.name for before in shown[:i])       # one of several for other types
        body.append(function(source, m, 'method', options=[':no-index:'] if again else ()) + '\n')
    return directive('class', cls.name + made, body, ticks=4)

def assigned(node):
    "Pairs of a name and its value; `A, B = 1, 2` gives two."
    for target in node.targets:
        if isinstance(target, ast.Name): yield target.id, node.value
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from ((t.id, v) for t, v in zip(target.elts, node.value.elts) if isinstance(t, ast.Name))

def constant(source, value, most=12):
    "A value as the source writes it, at most so many lines."
    lines = ast.get_source_segment(source.text, value).split('\n')
    return '\n'.join(['```python', *lines[:most], *(['# and so on'] if len(lines) > most else []), '```'])

def entries(source):
    "The Markdown of each public name of a module, in the order of the source."
    functions = [node for node in source.tree.body if is_function(node)]
    classes = {node.name for node in source.tree.body if isinstance(node, ast.ClassDef)}
    for node in source.tree.body:
        if is_function(node) and patched(node):
            owner = patched(node)
            if owner not in classes and not node.name.startswith('_') and owner.isidentifier():
                yield function(source, node, 'method', f'{owner}.')
        elif is_function(node) and node.name in source.public: yield function(source, node)
        elif isinstance(node, ast.ClassDef) and node.name in source.public:
            yield klass(source, node, [f for f in functions if patched(f) == node.name])
        elif isinstance(node, ast.Assign):
            behind = source.told.get(node.end_lineno, '')
            for name, value in assigned(node):
                if name in source.public:
                    yield directive('data', name, [behind, '', constant(source, value)], ticks=4)

def passed_on(source):
    "The public names that a module imports."
    imported = {alias.asname or alias.name for node in source.tree.body if isinstance(node, ast.ImportFrom)
                for alias in node.names}
    return [name for name in source.public if name in imported]

def passed_on_text(source):
    names = passed_on(source)
    return f"From here you can also import {', '.join(map(code, names))}." if names else ''

def module_page(source, notebook=None):
    "The page of a module; `notebook` is where it is explained."
    lines = [f'# {source.name}', '', source.doc, '']
    if notebook: lines += [f'It is explained, and written, by [{notebook[0]}](../{notebook[1]}).', '']
    return '\n'.join([*lines, f'```{{py:module}} {source.name}\n```', '', '\n\n'.join(entries(source)), '',
                      passed_on_text(source), ''])

def package_page(source, modules):
    "The page of a package: its modules, and what it passes on."
    lines = [f'# {source.name}', '', source.doc, '', f'```{{py:module}} {source.name}\n```', '']
    rows = [(f'[{m.name}]({m.name}.md)', m.doc.split('\n')[0].replace('|', r'\|')) for m in modules]
    lines += [table(('module', 'what it is for'), rows), ''] if rows else []
    lines += [passed_on_text(source), '']
    tree = '\n'.join(m.name for m in modules)
    return '\n'.join([*lines, f'```{{toctree}}\n:hidden:\n\n{tree}\n```', ''])

def sources(root):
    "Every module of the library."
    root = Path(root)
    for path in sorted((root/'namedmask').rglob('*.py')):
        if path.name.startswith('_') and path.name != '__init__.py' or '__pycache__' in path.parts: continue
        parts = path.relative_to(root).with_suffix('').parts
        yield Source(path, '.'.join(parts[:-1] if parts[-1] == '__init__' else parts))

def write(
    root,      # Of the repository
    folder,    # Where the pages go
    notebooks, # module -> (title, path) of the notebook that writes it
):
    "A page for each module and package, and one that lists the packages."
    every = {s.name: s for s in sources(root)}
    folder.mkdir(parents=True, exist_ok=True)
    inside = lambda name: [s for s in every.values() if s.name.rpartition('.')[0] == name]
    for source in every.values():
        if source.name == 'namedmask': continue
        children = inside(source.name)
        text = package_page(source, children) if children else module_page(source, notebooks.get(source.name))
        (folder/f'{source.name}.md').write_text(text, encoding='utf-8')
    top = inside('namedmask')
    rows = [(f'[{s.name}]({s.name}.md)', s.doc.split('\n')[0]) for s in top]
    lines = ['# Reference', '', 'Every public name, with the type, the default and the meaning of each parameter. '
             'It is read from the source; the notebook of a module explains it. `namedmask.fit` and `namedmask.Run` '
             'are `runs.pipeline.fit` and `runs.run.Run`.', '',
             table(('package', 'what it is for'), rows), '',
             '```{toctree}\n:hidden:\n\n' + '\n'.join(s.name for s in top) + '\n```', '']
    (folder/'index.md').write_text('\n'.join(lines), encoding='utf-8')
