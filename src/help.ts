import { variableOf } from './host/terminal.ts';
import { INPUT_NAMES, inputSpec } from './inputs.ts';

const WIDTH = 100;
const INDENT = 6;

/** What `kube-sideload --help` prints: the common case first, then every option of the inputs table. */
export function helpText(): string {
  const options = INPUT_NAMES.flatMap(name => {
    const { type, default: preset, help } = inputSpec(name);
    const choices = typeof type === 'object' ? ` One of: ${type.oneOf.join(', ')}.` : '';
    const fallback = preset === undefined ? '' : ` Default: ${preset}.`;
    const heading = type === 'secret' ? `  $${variableOf(name)}` : `  --${name}`;
    return [heading, ...wrap(`${help}${choices}${fallback}`)];
  });
  return [
    'kube-sideload push: put container images on Kubernetes nodes over SSH, and prove that they run there',
    '',
    'Usage:',
    '  kube-sideload push --images app:1.2 --nodes root@10.0.0.11,root@10.0.0.12',
    '  kube-sideload push --images app:1.2 --archive app.tar --nodes worker-1 --namespace smoke',
    '  kube-sideload push --images app:1.2          (nodes from the inventory of this machine)',
    '  kube-sideload plan --images app:1.2 …        (says what push would do, and changes nothing)',
    '',
    'Exit codes: 0 every node runs the images (plan: a push would start), 1 something failed, 2 wrong usage.',
    `Every option can also be set by a variable, as in $${variableOf('ssh-user')}; secrets only so, or by a file.`,
    '',
    'Options:',
    ...options,
    '  -h, --help',
    '  --version',
    '',
  ].join('\n');
}

function wrap(text: string): readonly string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > WIDTH - INDENT) {
      lines.push(line);
      line = word;
    } else {
      line = line === '' ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].map(one => `${' '.repeat(INDENT)}${one}`);
}
