import { describe, expect, it } from 'vitest';
import { SideloadError } from '../../../src/errors.ts';
import { INPUT_NAMES, inputSpec } from '../../../src/inputs.ts';
import { labelOf, parseInventory, parseNode } from '../../../src/node/inventory.ts';

/** The lines of the error, without the file's name. */
function faults(yaml: string): readonly string[] {
  try {
    parseInventory(yaml, 'inventory.yaml');
  } catch (error) {
    expect(error).toMatchObject({ code: 'INVENTORY_INVALID' });
    return (error as SideloadError).message.split('\n').map(line => line.replace('inventory.yaml', ''));
  }
  return [];
}

describe('a node', () => {
  it.each([
    ['worker-1', { host: 'worker-1' }],
    ['10.0.0.11', { host: '10.0.0.11' }],
    ['ci@worker-1.example', { host: 'worker-1.example', user: 'ci' }],
    ['worker_1:2222', { host: 'worker_1', port: 2222 }],
    [
      'root@10.0.0.11:22=worker-1.cluster.local',
      { host: '10.0.0.11', user: 'root', port: 22, kubernetesName: 'worker-1.cluster.local' },
    ],
    ['[fd00::11]', { host: 'fd00::11' }],
    ['root@[fe80::1%eth0]:22=w', { host: 'fe80::1%eth0', user: 'root', port: 22, kubernetesName: 'w' }],
    ['h=Worker-1', { host: 'h', kubernetesName: 'worker-1' }],
  ])('%s', (text, expected) => {
    expect(JSON.parse(JSON.stringify(parseNode(text)))).toEqual(expected);
  });

  it.each([
    '',
    ' ',
    'a b',
    '@a',
    'root@',
    'a:',
    'a:0',
    'a:65536',
    'a:ssh',
    'a=',
    'a=b=c',
    'a=b/c',
    'fd00::11',
    '[fd00::11',
    '-oProxyCommand=id',
    'a;reboot',
    '$(id)',
    '`id`',
    'a\nb',
    'root@-a',
    'a@b@c',
    'ssh://a',
  ])('is not %j', text => {
    expect(() => parseNode(text)).toThrow(SideloadError);
  });

  it('is called by its Kubernetes name, else by its address, with a port only when one was given', () => {
    expect(['10.0.0.11=w1', 'a', 'a:2222'].map(text => labelOf(parseNode(text)))).toEqual(['w1', 'a', 'a:2222']);
  });
});

describe('an inventory', () => {
  it('has nodes as texts or mappings, and settings by the names of inputs', () => {
    const { nodes, settings } = parseInventory(
      `
nodes:
  - ci@a:23=w
  - host: fd00::1
    port: 22
settings:
  ssh-port: 22
  smoke-command: [/app, "a b"]
`,
      'f',
    );
    expect(nodes).toEqual([
      { host: 'a', user: 'ci', port: 23, kubernetesName: 'w' },
      { host: 'fd00::1', user: undefined, port: 22, kubernetesName: undefined },
    ]);
    expect(settings).toEqual({ 'ssh-port': '22', 'smoke-command': '/app\na b' });
  });

  it('has a socket for a node, and true and false for inputs that are so', () => {
    const { nodes, settings } = parseInventory(
      `
nodes:
  - { host: a, cri-socket: unix:///run/other.sock }
settings:
  nodes-from-cluster: true
`,
      'f',
    );
    expect(nodes).toMatchObject([{ host: 'a', criSocket: '/run/other.sock' }]);
    expect(settings).toEqual({ 'nodes-from-cluster': 'true' });
  });

  it.each(['', '# nothing yet\n', '{}', 'nodes: []\n'])('may be empty: %j', yaml => {
    expect(parseInventory(yaml, 'f')).toEqual({ nodes: [], settings: {} });
  });

  it.each<[what: string, yaml: string, faults: readonly RegExp[]]>([
    ['no YAML', 'nodes:\n  - a\n - b\n', [/^:3: /, /^:3: /, /^:3: /]],
    ['a key twice', 'nodes: [a]\nsettings: {}\nnodes: [b]\n', [/^:3: the key "nodes" is there twice/]],
    ['an unknown alias', 'nodes:\n  - *gone\n', [/^:2: .*gone/]],
    ['a list', '- a\n- b\n', [/^:1: the file: /]],
    ['a text', 'hello', [/^:1: the file: /]],
    ['an unknown key', 'nodes: [a]\nhosts: [b]\n', [/^:2: hosts: there is no such key/]],
    ['nodes as a text', 'nodes: a,b\n', [/^:1: nodes: /]],
    ['a node that is none', 'nodes:\n  - a\n  - b c\n', [/^:3: "b c" is not a node/]],
    ['a node that is a number', 'nodes:\n  - a\n  - 1.5\n', [/^:3: nodes.1: /]],
    ['a node without a host', 'nodes:\n  - name: w\n', [/^:2: nodes.0.host: .*"host"/]],
    ['an unknown key of a node', 'nodes:\n  - host: a\n    key: b\n', [/^:3: nodes.0.key: there is no such key/]],
    ['a port that is none', 'nodes:\n  - host: a\n    port: 70000\n', [/^:3: nodes.0.port: .*65535/]],
    ['a port as a text', 'nodes:\n  - host: a\n    port: "22"\n', [/^:3: nodes.0.port: .*number/]],
    ['a socket that is no path', 'nodes:\n  - host: a\n    cri-socket: run/x\n', [/^:2: `cri-socket` must be/]],
    ['a host with a shell in it', 'nodes:\n  - host: $(id)\n', [/^:2: .*is not a node/]],
    ['a list for a node', 'nodes:\n  - [a]\n', [/^:2: nodes.0: write `key: value` here/]],
    ['an empty node', 'nodes:\n  -\n', [/^:2: nodes.0: /]],
    ['an unknown setting', 'settings:\n  ssh-user: ci\n  shh-port: 22\n', [/^:3: there is no setting `shh-port`/]],
    ['a setting of the wrong kind', 'settings:\n  ssh-user: ci\n  smoke: false\n', [/^:3: settings.smoke: /]],
    ['settings as a list', 'settings: [a]\n', [/^:1: settings: /]],
    [
      'several at once',
      'nodes:\n  - a b\n  - c d\nsettings:\n  nope: 1\n  images: app:1\n',
      [/^:2: "a b"/, /^:3: "c d"/, /^:5: .*`nope`/, /^:6: `images` is given by the job/],
    ],
  ])('is refused with the line: %s', (_what, yaml, expected) => {
    expect(faults(yaml)).toEqual(expected.map(pattern => expect.stringMatching(pattern)));
  });

  const secrets = INPUT_NAMES.filter(name => inputSpec(name).type === 'secret');
  it.each(secrets)('holds no secret: %s', name => {
    expect(faults(`settings:\n  ${name}: hunter2\n`)).toEqual([
      expect.stringMatching(/^:2: .* is a secret and does not belong/),
    ]);
    expect(faults(`settings:\n  ${name}: hunter2\n`).join()).not.toContain('hunter2');
  });

  it.each(['images', 'archive', 'nodes', 'inventory'])('does not set what the job gives: %s', name => {
    expect(faults(`settings:\n  ${name}: x\n`)).toEqual([expect.stringMatching(/^:2: .* is given by the job/)]);
  });
});
