import { describe, expect, it } from 'vitest';
import { INPUT_NAMES, type InputName, parseInputs } from '../../src/inputs.ts';

function parse(texts: Partial<Record<InputName, string>>) {
  return parseInputs(name => texts[name]);
}

/** What one text becomes: the value, or the message of the problem. */
function parsed(name: InputName, text: string): unknown {
  const { inputs, problems } = parse({ [name]: text });
  return problems.length === 0 ? inputs[name] : problems.map(({ message }) => message).join('; ');
}

describe('texts become values', () => {
  it.each<[name: InputName, text: string, value: unknown]>([
    ['images', 'app:1', ['app:1']],
    ['images', 'app:1, db:2,,web:3 ', ['app:1', 'db:2', 'web:3']],
    ['images', '\n  app:1\r\n# the database\n\ndb:2\n', ['app:1', 'db:2']],
    ['images', 'app:1,db:2\nweb:3', ['app:1', 'db:2', 'web:3']],
    // Whoever reads the reference says what is wrong with it.
    ['images', 'app:1 db:2', ['app:1 db:2']],
    ['images', 'app:1, db 2', ['app:1, db 2']],
    ['smoke-command', '/app\n--mode=a,b\n--verbose', ['/app', '--mode=a,b', '--verbose']],
    ['ssh-port', '22', 22],
    ['ssh-port', ' 65535\n', 65535],
    ['connect-timeout', '90', 90],
    ['connect-timeout', '90s', 90],
    ['connect-timeout', '2m', 120],
    ['smoke-timeout', '24h', 86_400],
    ['cache-size', '0', 0],
    ['cache-size', ' 10GB\n', 10e9],
    ['cache-size', '500MiB', 500 * 2 ** 20],
    ['cache-size', '1kB', 1000],
    ['smoke', 'none', 'none'],
    ['smoke', ' pod\n', 'pod'],
    ['archive', ' /tmp/my image.tar ', '/tmp/my image.tar'],
    ['namespace', ' smoke ', 'smoke'],
    // A passphrase may end in a blank; a key is repaired where it is read.
    ['ssh-key-passphrase', ' secret ', ' secret '],
  ])('%s: %j', (name, text, value) => {
    expect(parsed(name, text)).toEqual(value);
  });
});

describe('nothing is coerced', () => {
  const port = /must be a port from 1 to 65535/;
  const size = /must be a size such as `500MB` or `10GiB`, or `0`, not/;
  const time = /must be a time such as `90s`, `2m` or `1h` \(one day at most\)/;
  it.each<[name: InputName, text: string, message: RegExp]>([
    ['ssh-port', '0', port],
    ['ssh-port', '65536', port],
    ['ssh-port', '022222', port],
    ['ssh-port', '22.0', port],
    ['ssh-port', '0x16', port],
    ['ssh-port', '-22', port],
    ['ssh-port', 'ssh', port],
    ['connect-timeout', '0', time],
    ['connect-timeout', '1.5m', time],
    ['connect-timeout', '1m30s', time],
    ['connect-timeout', '-1', time],
    ['connect-timeout', '25h', time],
    ['connect-timeout', '90 s', time],
    ['connect-timeout', 'forever', time],
    ['cache-size', '10', size],
    ['cache-size', '10G', size],
    ['cache-size', '1.5GB', size],
    ['cache-size', '10gb', size],
    ['cache-size', '10 GB', size],
    ['cache-size', '1KB', size],
    ['cache-size', '-1GB', size],
    ['cache-size', '10iB', size],
    ['smoke', 'yes', /must be `pod` or `cri` or `none`, not "yes"/],
    ['smoke', 'None', /must be `pod` or `cri` or `none`, not "None"/],
    ['smoke', 'true', /must be `pod` or `cri` or `none`, not "true"/],
    ['source', 'registry', /must be `auto` or `docker` or .* or `archive`, not "registry"/],
    ['archive', 'a.tar\nb.tar', /must be a path on one line, not "a.tar"…/],
    ['archive', 'a\0.tar', /must be a path on one line/],
  ])('%s: %j', (name, text, message) => {
    expect(parsed(name, text)).toMatch(message);
  });
});

it('reports everything that is wrong, together', () => {
  const { problems } = parse({ 'ssh-port': 'x', smoke: 'maybe', 'connect-timeout': 'soon', images: 'app:1' });
  expect(problems.map(({ message }) => /`([\w-]+)`/.exec(message)?.[1])).toEqual([
    'ssh-port',
    'connect-timeout',
    'smoke',
  ]);
});

it.each(['', '  ', '\n'])('takes %j for not set, as CI systems do', text => {
  const { inputs, problems } = parseInputs(() => text);
  expect(problems).toEqual([]);
  expect(inputs).toMatchObject({
    images: [],
    source: 'auto',
    archive: undefined,
    nodes: [],
    'ssh-user': 'root',
    'ssh-port': 22,
    'ssh-private-key': undefined,
    'connect-timeout': 20,
    smoke: 'pod',
    kubectl: 'kubectl',
    namespace: 'default',
    'smoke-timeout': 120,
  });
});

it('has a value that parses for every default', () => {
  expect(parse({}).problems).toEqual([]);
});

it('does not put a key that got into an input for a path into the message', () => {
  const key = '-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIsecretsecret\n-----END EC PRIVATE KEY-----';
  const { problems } = parse({ 'ssh-private-key-file': key });
  expect(JSON.stringify(problems)).not.toContain('MHcCAQEEI');
  expect(problems).toHaveLength(1);
});

it('names inputs in kebab-case, which every front end can spell', () => {
  for (const name of INPUT_NAMES) expect(name).toMatch(/^[a-z]+(-[a-z]+)*$/);
});
