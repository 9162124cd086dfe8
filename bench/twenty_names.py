"""Twenty names of which a pool has only some: does the archive say which of them are not to be trusted, before anything is trained?

    python bench/twenty_names.py --shared ../shared/data --out runs/twenty

Index and archives of `photo_pool` and `unlabelled_scenes` for VOC's twenty names, with the offline teachers and the defaults of `fit`, which goes on from
here with `namedmask fit --images ... --out runs/twenty`. Printed beside each name's trust: its precision by `photo_pool_labels.csv`, which covers the pool
and not the scenes. Trust was designed with these precisions in view, on the pool alone: so this is a check that it does what it says, no test of a guess.
"""
import argparse
from pathlib import Path

VOC = ('aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,dining table,dog,horse,motorbike,person,potted plant,sheep,sofa,train,'
       'tv monitor=television|tv monitor')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--shared', type=Path, required=True); p.add_argument('--out', type=Path, required=True); p.add_argument('--n', type=int, default=100)
    a = p.parse_args()
    from namedmask.core import own_folder
    from namedmask.evaluate.quality import retrieval_precision
    from namedmask.stages.index import build_index
    from namedmask.stages.diversity import ImageEmbedder
    from namedmask.stages.build import build_archive
    from namedmask.teachers.sets import get_teachers
    teachers = get_teachers('offline')
    retriever = teachers.retriever()
    own_folder(a.out)
    index = build_index([str(a.shared/'photo_pool'), str(a.shared/'unlabelled_scenes')], retriever, a.out/'index')
    archive = build_archive(index, retriever, VOC, a.n, a.out/'archive', looks=ImageEmbedder(teachers.features()[0]), votes=teachers.votes, alike=teachers.alike, warn=False)
    found = retrieval_precision(archive, a.shared/'photo_pool_labels.csv', k=a.n)
    for name, o in found['names'].items(): print(f"{name:14} trust {archive.trust[name]:.2f}  precision {'-' if o['precision'] is None else format(o['precision'], '.2f')} of {o['labelled']} labelled")
    print(f"rank correlation of trust and precision: {found['trust']:.2f} over {found['trust_over']} names")
    for w in archive.warnings: print('note:', w)


if __name__ == '__main__': main()
