'use strict';
// Sends a picture as the body of a request, and shows the page's part that comes back.
(() => {
  const find = id => document.getElementById(id);
  const file = find('file'), drop = find('drop'), shown = find('shown'), told = find('told'), answer = find('answer');
  if (location.search) history.replaceState(null, '', location.pathname); // the token is in a cookie now
  let picture = null, asking = null;
  const say = (text, isBad = false) => { told.textContent = text; told.classList.toggle('bad', isBad); };
  const ask = async () => {
    if (!picture) return say('Choose a picture first.', true);
    asking?.abort(); // what was asked before is not waited for
    const own = asking = new AbortController(), words = new URLSearchParams();
    for (const name of ['samples', 'temperature', 'seed', 'prompt', 'text']) words.set(name, find(name).value);
    words.set('attention', find('attention').checked ? '1' : '0');
    say('Writing captions ...');
    answer.classList.add('busy');
    let text = 'No answer: does capkit demo still run?', isGood = false;
    try {
      const response = await fetch(`caption?${words}`,
        {method: 'POST', headers: {'content-type': 'application/octet-stream'}, body: picture, signal: own.signal});
      text = await response.text() || `The demo answered with status ${response.status}.`;
      isGood = response.ok;
    } catch { /* the text above says so */ }
    if (own !== asking) return; // another picture was given meanwhile
    answer.classList.remove('busy');
    answer.innerHTML = isGood ? text : '';
    say(isGood ? '' : text, !isGood);
  };
  const take = one => {
    if (!one) return;
    const most = Number(file.dataset.most);
    if (one.size > most) return say(`Expected a picture of at most ${most / 1e6} MB, got ${(one.size / 1e6).toFixed(1)} MB.`, true);
    picture = one;
    const held = new DataTransfer();
    held.items.add(one);
    file.files = held.files; // its name stands there, dropped and pasted ones too
    URL.revokeObjectURL(shown.src);
    shown.src = URL.createObjectURL(one);
    shown.hidden = false;
    ask();
  };
  shown.addEventListener('error', () => { shown.hidden = true; }); // a format that capkit reads and the browser does not
  file.addEventListener('change', () => take(file.files[0]));
  find('ask').addEventListener('submit', event => { event.preventDefault(); ask(); });
  document.addEventListener('paste', event => take([...event.clipboardData.files][0]));
  document.addEventListener('dragover', event => { event.preventDefault(); drop.classList.add('over'); });
  document.addEventListener('dragleave', () => drop.classList.remove('over'));
  document.addEventListener('drop', event => {
    event.preventDefault();
    drop.classList.remove('over');
    const one = event.dataTransfer.files[0];
    if (one) take(one); else say('Expected a picture file, got something else; save the picture and drop the file.', true);
  });
})();
