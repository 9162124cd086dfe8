"""The first picture of the README: photos that scikit-image ships, and what the segmenter that comes with the package says of them.

    python nbs/images/first_minute.py      # writes first_minute.jpg beside this file
"""
from pathlib import Path
import numpy as np
from PIL import Image
from skimage import data
from namedmask import Predictor
from namedmask.app.formats import legend_box
from namedmask.data.draw import overlay

PHOTOS = ('chelsea', 'astronaut', 'coffee', 'horse')
SIZE = 300, 220


def main():
    predictor, wide = Predictor.from_pretrained(device='cpu'), 4*SIZE[0] + 3*8
    page = Image.new('RGB', (wide, 2*SIZE[1] + 8 + 40), 'white')
    labels = set()
    for column, name in enumerate(PHOTOS):
        photo = Image.fromarray(getattr(data, name)()).convert('RGB')
        said = predictor(photo)
        labels |= set(np.unique(said.labels).tolist()) - {0}
        for row, im in enumerate((photo, overlay(photo.convert('L'), said.labels, .75))):
            page.paste(cropped(im), (column*(SIZE[0] + 8), row*(SIZE[1] + 8)))
    legend = legends(sorted(labels), predictor.names)
    page.paste(legend, ((wide - legend.width)//2, 2*SIZE[1] + 12))
    page.save(Path(__file__).with_suffix('.jpg'), quality=88)


def cropped(im):
    "The middle of a picture, at the size of a field."
    w, h = im.size
    scale = max(SIZE[0]/w, SIZE[1]/h)
    im = im.convert('RGB').resize((round(w*scale), round(h*scale)))
    left, top = (im.width - SIZE[0])//2, (im.height - SIZE[1])//4
    return im.crop((left, top, left + SIZE[0], top + SIZE[1]))


def legends(labels, names):
    "The key of the colours, side by side."
    boxes = [legend_box([names[label]], [label], 20) for label in labels]
    line = Image.new('RGB', (max(1, sum(box.width + 16 for box in boxes)), 32), 'white')
    x = 0
    for box in boxes:
        line.paste(box, (x, 0))
        x += box.width + 16
    return line


if __name__ == '__main__': main()
