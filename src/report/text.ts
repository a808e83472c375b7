/** A text in lines of whole words, each as long as there is room; a word that is longer has a line of its own. */
export function wrap(text: string, columns: number): readonly string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > columns) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line];
}

/**
 * A text of somebody else (a node, a pod, an image, a file) as people may see it: no terminal, no log viewer and no CI
 * system takes any of it for a command. Letters, blanks, tabs and line feeds stay; a second call changes nothing.
 *
 * - Control sequences go (ECMA-48, OSC 8 links among them), then all that steers and is not seen: control and format
 *   characters, marks of direction, whatever Unicode calls ignorable, and its own ends of lines. GitHub’s runner ignores
 *   these too where it looks for `::` and `##[`: it compares as people read (actions/runner: ActionCommand.cs).
 * - `##[command]` counts anywhere in a line on GitHub, Gitea and Azure (`##vso[`), `##teamcity[` does on TeamCity: torn
 *   apart, as is `::command::` at the beginning of a line, behind any blanks; `::1` is an address.
 */
export function harmless(text: string): string {
  return text
    .replaceAll(SEQUENCES, '')
    .replaceAll(UNSEEN, '')
    .replaceAll(/##(?=\w*\[)/g, '## ')
    .replaceAll(/^(?=[\t\p{Zs}]*::.*::)/gmu, '| ');
}

// Each part ends at the next control character: no text takes longer than its length.
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must go.
const STRING = /(?:\u001b[\]PX^_]|[\u0090\u0098\u009d-\u009f])[^\u0000-\u001f\u007f-\u009f]*(?:\u0007|\u001b\\|\u009c)/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: likewise.
const OTHER = /(?:\u001b\[|\u009b)[0-?]*[ -/]*[@-~]|\u001b[ -/]*[0-~]/;
const SEQUENCES = new RegExp(`${STRING.source}|${OTHER.source}`, 'g');
const UNSEEN = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/gu;

/**
 * A text inside of a line or a table’s cell of GitHub’s Markdown, which shows it as it is: no link, image, heading, mention
 * or end of the cell comes of it. What is more than plain words is code, where GitHub looks for nothing; and what could mean
 * something is written as an entity, which never does (CommonMark: entity references).
 */
export function markdownText(text: string): string {
  const line = inOneLine(text);
  // One tilde, as in Debian's versions, strikes nothing out.
  return isPlain(line.replace(/(?<=\w)~(?=\w)/, '')) ? line : markdownCode(line);
}

/** A sentence of ours, with backticks around code, and with words of others in it. */
export function markdownSentence(text: string): string {
  const wordsOf = (part: string) => part.split(' ').map(word => (isPlain(word) ? word : markdownCode(word)));
  return inOneLine(text)
    .split('`')
    .map((part, index) => (index % 2 === 1 ? markdownCode(part) : wordsOf(part).join(' ')))
    .join('');
}

function inOneLine(text: string): string {
  return harmless(text).replaceAll(/\s+/g, ' ');
}

function markdownCode(line: string): string {
  return line === '' ? '' : `<code>${entities(line)}</code>`;
}

/** Words that Markdown leaves alone, and what GitHub makes of it: addresses, emoji, commits, issues. */
function isPlain(line: string): boolean {
  return (
    /^(?:[\p{L}\p{N} ,.;:?!()“”’–…✔✘%/+=-]|(?<=[A-Za-z0-9])_(?=[A-Za-z0-9]))*$/u.test(line) &&
    !/\/\/|www\.|:[\w+-]+:|\bGH-\d|\b[0-9a-f]{7,40}\b/i.test(line)
  );
}

function entities(line: string): string {
  return line.replaceAll(/[^\p{L}\p{N} ,.;:/–…-]|:(?=\/)|(?<=www)\./giu, character => `&#${character.codePointAt(0)};`);
}
