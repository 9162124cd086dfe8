// Stands in a box of ipywidgets and shows nothing. JupyterLab keeps its own keys out of the controls of that box: its
// arrow keys would be taken from the sliders, and a letter that looks for a name in a menu would insert or cut a cell.

const keep = event => event.target.setAttribute('data-lm-suppress-shortcuts', 'true');

export default {
  render({el}) {
    let box, frame;
    const find = () => {
      if (el.isConnected) {
        box = el.closest('.widget-box');
        box?.addEventListener('focusin', keep);
      } else frame = requestAnimationFrame(find);           // it is not on the page yet
    };
    find();
    return () => {
      cancelAnimationFrame(frame);
      box?.removeEventListener('focusin', keep);
    };
  },
};
