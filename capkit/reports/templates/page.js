'use strict';
// Pictures open larger; charts tell the numbers under the pointer. Without a script the page shows all but these.
(() => {
  const dialog = document.createElement('dialog'), large = document.createElement('img'), said = document.createElement('p');
  dialog.append(large, said);
  document.body.append(dialog);
  dialog.addEventListener('click', () => dialog.close());
  const open = image => { large.src = image.src; said.textContent = large.alt = image.alt; dialog.showModal(); };
  for (const image of document.querySelectorAll('img')) {
    if (dialog.contains(image) || image.closest('label')) continue;
    image.classList.add('opens');
    image.tabIndex = 0;
  }
  document.addEventListener('click', event => { if (event.target.matches('img.opens')) open(event.target); });
  document.addEventListener('keydown', event => {
    if (event.key === 'Enter' && event.target.matches('img.opens')) open(event.target);
  });
  const tip = document.createElement('div');
  tip.id = 'tip';
  document.body.append(tip);
  const short = value => String(Number(value.toPrecision(4)));
  for (const chart of document.querySelectorAll('svg[data-lines]')) {
    const series = JSON.parse(chart.dataset.lines), mark = chart.querySelector('.pointer');
    chart.addEventListener('pointermove', event => {
      const box = chart.getBoundingClientRect(), scale = chart.viewBox.baseVal.width / box.width;
      const at = (event.clientX - box.left) * scale;
      const near = series.map(one => one.points.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
      const first = near.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
      mark.setAttribute('d', `M${first[0]} ${chart.dataset.top}V${chart.dataset.bottom}`);
      const lines = near.map((point, i) => [series[i].name, point]).filter(pair => pair[1][1] === first[1])
        .map(pair => `${pair[0]}${pair[0] ? ': ' : ''}${short(pair[1][2])}`);
      tip.textContent = [`${chart.dataset.x} ${short(first[1])}`, ...lines].join('\n');
      tip.style.display = 'block';
      tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${event.clientY + 14}px`;
    });
    chart.addEventListener('pointerleave', () => { tip.style.display = 'none'; mark.setAttribute('d', ''); });
  }
})();
