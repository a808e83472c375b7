/** What somebody who means harm has a node, a pod, an image or a file say, and how one sees that it got through. */

const ESC = '\u001b';

/** Whatever is invisible to people, and to programs that compare as people read. */
const UNSEEN = [
  '\u0000',
  '\u0085',
  '\u00ad',
  '\u034f',
  '\u200b',
  '\u200d',
  '\u2028',
  '\u2060',
  '\ufe0f',
  '\ufeff',
  '\u{e0041}',
];

/** Each by what it would do. None of them has a word that the product itself would write. */
export const HOSTILE_TEXTS: Readonly<Record<string, string>> = {
  'a command of GitHub’s': '::set-env name=EVIL::1',
  'a command behind blanks': ' \t\u00a0\u3000::add-path::/evil',
  'a command in a line of its own': 'said\n::add-mask::evil\r\n::stop-commands::evil\r::save-state name=evil::1',
  'a command behind what no one sees': `${UNSEEN.join('')}::set-output name=evil::1`,
  'a command with something unseen inside': ':\u00ad:set-env name=EVIL:\u200b:1',
  'an old command within a line': 'said ##[add-matcher]/evil.json',
  'an old command in pieces': UNSEEN.map(one => `#${one}#${one}[set-env name=EVIL]1`).join(' '),
  'an old command with a colour in it': `#${ESC}[31m#${ESC}[0m[add-path]/evil`,
  'an old command three times over': '####[add-path]/evil',
  'a command of Azure’s': '##vso[task.setvariable variable=evil]1',
  'a service message of TeamCity’s': '##teamcity[setParameter name=evil]',
  'a section of GitLab’s': `${ESC}[0Ksection_start:1:evil[collapsed=true]\r${ESC}[0KEvil`,
  'a title for the window': `${ESC}]0;evil\u0007`,
  'a link of a terminal': `${ESC}]8;;https://evil.example/${ESC}\\click${ESC}]8;;${ESC}\\`,
  'a question to the terminal': `${ESC}[6n${ESC}P+q544e${ESC}\\\u009bc`,
  'a cleared screen': `${ESC}c${ESC}[2J\u009b3J${ESC}[H`,
  'a line that overwrites another': 'evil\rfine\u0008\u0008',
  'a text that runs backwards': '\u202eevil\u202c\u2066evil\u2069',
  'an escape that never ends': `${ESC}]8;;https://evil.example/${ESC}[${ESC}P`,
  'a link': '[click](https://evil.example)',
  'a link by name': '[click][1]\n\n[1]: https://evil.example',
  'a picture': '![](https://evil.example/pixel.png)',
  'an address': 'https://evil.example www.evil.example evil@evil.example',
  'a mention': '@evil-team fixes evil/evil#1 and GH-1 in 0123abcd',
  'a heading': '# Evil\n\nEvil\n====\n',
  HTML: '<img src=x onerror=evil()><a href="https://evil.example">&lt;</a><!-- ',
  'the end of a cell': String.raw`evil | evil \| evil \\| evil`,
  'the end of a fence': 'evil\n```\n~~~\n````\n# evil',
  'code and emphasis': '`evil` ``*evil*`` **evil** _evil_ ~~evil~~ $evil$',
  'a quotation and a list': '> evil\n- evil\n1. evil\n---\n| a |\n| - |',
  'the end of an attribute': `"><failure message='evil'>]]><![CDATA[ &evil; \uffff\u000b`,
  'a variable more': 'evil\nKUBE_SIDELOAD_SUCCEEDED=true\nPATH=/evil',
};

/** All of them in one text. */
export const ALL_HOSTILE_TEXTS = Object.values(HOSTILE_TEXTS).join('\n');

/** Commands that the product gives itself; `add-mask` is looked at by what it masks. */
const OWN_COMMANDS: ReadonlySet<string> = new Set(['group', 'endgroup', 'error', 'warning', 'add-mask']);
const COMMANDS: ReadonlySet<string> = new Set([
  ...OWN_COMMANDS,
  ...['set-env', 'add-path', 'set-output', 'save-state', 'add-matcher', 'remove-matcher', 'notice', 'debug', 'echo'],
  ...['stop-commands', 'internal-set-repo-path'],
]);

/** A line as GitHub's runner compares it: with ICU, which passes over what is not seen. */
function asCompared(line: string): string {
  return line.replaceAll(/[\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}]/gu, found =>
    /[\t\u0085]/.test(found) ? ' ' : '',
  );
}

/** The commands in a log, as GitHub's runner finds them (actions/runner: ActionCommand.cs), with what they are given. */
export function commandsIn(log: string): readonly { readonly name: string; readonly data: string }[] {
  return log.split(/\r\n|\r|\n/).flatMap(raw => {
    const line = asCompared(raw);
    const [, now = '', nowData = ''] = /^\s*::(.*?)::(.*)$/.exec(line) ?? [];
    const [, old = '', oldData = ''] = /##\[([^\]]*)\](.*)$/.exec(line) ?? [];
    return [
      { name: now.split(' ')[0] ?? '', data: nowData },
      { name: old.split(' ')[0] ?? '', data: oldData },
    ].filter(({ name }) => COMMANDS.has(name));
  });
}

/** What in a log does something to whoever shows it; nothing in one that is sound. */
export function harmIn(log: string): readonly string[] {
  const own = log.replaceAll(
    // biome-ignore lint/suspicious/noControlCharactersInRegex: GitLab's own marks of a section.
    /\u001b\[0Ksection_(?:start|end):\d+:kube_sideload_\d+(?:\[collapsed=true\])?\r\u001b\[0K/g,
    '',
  );
  const data = commandsIn(own).map(one => one.data.replaceAll('%0A', '\n').replaceAll('%0D', '\r'));
  return [
    ...commandsIn(own)
      .filter(({ name }) => !OWN_COMMANDS.has(name))
      .map(({ name }) => `the command ${name}`),
    ...data.flatMap(text => commandsIn(text).map(({ name }) => `the command ${name} within another`)),
    ...[own, ...data].flatMap(text =>
      [...text.matchAll(/(?![\n\t])[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu)].map(
        ([found]) => `U+${found.codePointAt(0)?.toString(16).padStart(4, '0')}`,
      ),
    ),
    ...(/##\w*\[/.exec(own) ?? []),
  ];
}

/** What in a page in Markdown is not the product's own; its own marks are headings, tables, fences and `<code>`. */
export function harmInMarkdown(page: string): readonly string[] {
  const outside = page.replaceAll(/^```text\n[\s\S]*?\n```$/gm, '');
  const broken: string[] = [];
  let width: number | undefined;
  for (const line of outside.split('\n')) {
    const cells = line.startsWith('|') ? line.split('|').length : undefined;
    if (cells !== undefined && width !== undefined && cells !== width) broken.push(`a row of other cells: ${line}`);
    width = cells;
  }
  const words = outside
    .replaceAll(/<code>(?:[\p{L}\p{N} ,;/–…-]|&#\d+;|\.|:(?!\/))*<\/code>/gu, '')
    .replaceAll(/ \(`[A-Z_]+`\)$/gm, '')
    .replaceAll('**Next step:**', '')
    .replaceAll(/^#{2,3} (?=kube-sideload: |Before |[^#]*$)/gm, '');
  return [...broken, ...(words.match(/[[\]<>`*~@#$\\{}]|!\[|\/\/|www\.|&/g) ?? []), ...harmIn(page)];
}
