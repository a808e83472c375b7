/** What a failed job tells last: every cause, with an exit code that is what the README says, and a step that can be taken. */
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EXIT } from '../../src/host/host.ts';
import { faultsOf } from '../json-schema.ts';
import { type Inputs, plan, push, runAction, runCli } from '../shipped.ts';
import { KEYS, startServer } from '../ssh/server.ts';
import { expectRefusal, unreachable } from './refusal.ts';

const root = resolve(import.meta.dirname, '..', '..');
const directory = await mkdtemp(join(tmpdir(), 'kube-sideload-causes-'));
const at = (name: string) => join(directory, name);
/** Nothing is wrong with these, but that nobody listens at the node. */
let inputs: Inputs;

const NODE = {
  metadata: { name: 'w1', labels: { 'kubernetes.io/os': 'linux' } },
  status: { addresses: [{ type: 'InternalIP', address: '127.0.0.1' }] },
};

/** In place of kubectl: an API server with one node, which can be asked for nodes alone. */
const KUBECTL = `#!/bin/sh
case "$*" in
*labelSelector=a%3Db%3Dc*) echo 'Error from server (BadRequest): unable to parse requirement: found =' >&2; exit 1 ;;
*labelSelector=pool%3Dnone*) echo '{"items":[]}' ;;
*/nodes*) echo '${JSON.stringify({ items: [NODE] })}' ;;
*) echo 'The connection to the server 127.0.0.1:6443 was refused' >&2; exit 1 ;;
esac
`;

beforeAll(async () => {
  inputs = await unreachable(directory);
  await writeFile(at('kubectl'), KUBECTL);
  await chmod(at('kubectl'), 0o755);
  await writeFile(at('kubeconfig'), 'apiVersion: v1\n');
});

afterAll(() => rm(directory, { recursive: true, force: true }));

function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? '';
}

describe('several causes at once', () => {
  it('are all in the last line, each with a step of its own before it', async () => {
    const both = await push({ ...inputs, archive: at('gone.tar') });
    expectRefusal(both, 'ARCHIVE_INVALID', /gone\.tar does not exist/);
    expect(lastLine(both.stderr)).toBe(
      'failed: The image archive cannot be read [ARCHIVE_INVALID]; 1 of 1 nodes failed: w1 [SSH_UNREACHABLE]',
    );
    expect(both.stderr.match(/^Next step: /gm)).toHaveLength(2);
  });

  it('are all told when the image, the node and the cluster fail', async () => {
    const cluster = { smoke: 'pod', kubectl: at('kubectl'), kubeconfig: at('kubeconfig') };
    const report = at('all.json');
    const all = {
      ...inputs,
      ...cluster,
      archive: at('gone.tar'),
      'nodes-from-cluster': 'false',
      'report-json': report,
    };
    const outcome = await runAction({ ...all, 'node-selector': 'a=b=c' });
    for (const code of ['ARCHIVE_INVALID', 'INPUT_INVALID', 'SSH_UNREACHABLE']) {
      expect(outcome.log).toMatch(new RegExp(`^::error .*\\[${code}\\]`, 'm'));
      expect(lastLine(outcome.log)).toContain(`[${code}]`);
      expect(outcome.summary).toContain(`(\`${code}\`)`);
    }
    const schema: unknown = JSON.parse(await readFile(join(root, 'schemas', 'report.schema.json'), 'utf8'));
    const document: unknown = JSON.parse(await readFile(report, 'utf8'));
    expect(faultsOf(schema, document, true)).toEqual([]);
    expect(document).toMatchObject({ error: { code: 'ARCHIVE_INVALID' }, otherErrors: [{ code: 'INPUT_INVALID' }] });
    expect(outcome.code).toBe(EXIT.failed);
  });
});

describe('the exit codes of the README', () => {
  it('are all there are', async () => {
    const table = /\| exit code \| \|\n\| --- \| --- \|\n((?:\|.*\n)+)/.exec(
      await readFile(join(root, 'README.md'), 'utf8'),
    );
    const codes = table?.[1]?.matchAll(/^\| ([\d, ]+) \|/gm) ?? [];
    const told = [...codes].flatMap(([, list = '']) => list.split(', ').map(Number));
    expect(told.toSorted()).toEqual(Object.values(EXIT).toSorted());
  });

  it('0: a command that has done what it says', async () => {
    const { archive = '' } = inputs;
    expect(await runCli(['bundle', `--archive=${archive}`, `--bundle=${at('out.tar')}`])).toMatchObject({
      code: EXIT.ok,
    });
  });

  it('1: something failed', async () => {
    expectRefusal(await push(inputs), 'SSH_UNREACHABLE', /1 of 1 nodes failed/, EXIT.failed);
  });

  const late: readonly (readonly [what: string, changes: Inputs, said: RegExp])[] = [
    ['a selector that is none', { 'node-selector': 'a=b=c' }, /`node-selector`: .*unable to parse/],
    ['a selector that takes nothing', { 'node-selector': 'pool=none' }, /no Linux node that `node-selector` takes/],
    ['an entry for no node', { nodes: '10.99.99.99' }, /`nodes` has 10\.99\.99\.99, which .* does not find/],
  ];
  it.each(late)('2: an input that turns out to be wrong later: %s', async (_what, changes, said) => {
    const cluster = { 'nodes-from-cluster': 'true', kubectl: at('kubectl'), kubeconfig: at('kubeconfig'), nodes: '' };
    const outcome = await plan({ ...inputs, ...cluster, ...changes });
    expectRefusal(outcome, 'INPUT_INVALID', said, EXIT.usage);
    expect(lastLine(outcome.stderr)).toContain('[INPUT_INVALID]');
  });

  it('2: an alias for an image that is not in the archive', async () => {
    const { archive = '' } = inputs;
    const outcome = await runCli(['bundle', `--archive=${archive}`, `--bundle=${at('no.tar')}`, '--aliases=b:1=c:1']);
    expectRefusal(outcome, 'INPUT_INVALID', /c:1/, EXIT.usage);
  });
});

describe('a wrong command line', () => {
  it.each<[args: readonly string[]]>([
    [['push', '--json', '--nope']],
    [['--json', 'pull']],
    [['push', '--json', 'app:1']],
    [['plan', '--json', '--mode=push']],
    [['push', '--json', '--archive=a', '--archive=b']],
    [['--json']],
  ])('has a record with --json, as its schema says: %j', async args => {
    const schema: unknown = JSON.parse(await readFile(join(root, 'schemas', 'report.schema.json'), 'utf8'));
    const { code, stdout, stderr } = await runCli(args);
    expect(code).toBe(EXIT.usage);
    const document: unknown = JSON.parse(stdout);
    expect(faultsOf(schema, document, true)).toEqual([]);
    expect(document).toMatchObject({ succeeded: false, nodes: [], error: { code: 'INPUT_INVALID' } });
    expect(stderr).not.toBe('');
  });

  it.each<[what: string, args: readonly string[], said: RegExp]>([
    ['a name as a word', ['push', 'shop:1.0'], /^push takes nothing but options, and got shop:1\.0: .*--images/],
    [
      'files that a shell has made of a pattern',
      ['check', '--expected', 'a.json', 'b.json'],
      /got b\.json: .*several times/,
    ],
    ['a letter too few', ['push', '--image', 'shop:1.0'], /there is no option --image; there is --images/],
    ['a letter for a word', ['push', '-i', 'shop:1.0'], /there is no option -i$/m],
    ['a choice without a word', ['prune', '--dry-run'], /--dry-run needs a value: --dry-run=true\|false/],
    [
      'a secret',
      ['push', '--ssh-private-key', 'key'],
      /set the variable KUBE_SIDELOAD_SSH_PRIVATE_KEY, or .*--ssh-private-key-file/,
    ],
    [
      'an archive twice',
      ['push', '--archive=a.tar', '--archive=b.tar'],
      /--archive takes one value, and is there 2 times: "a\.tar", "b\.tar"/,
    ],
  ])('is told in words that say what to write: %s', async (_what, args, said) => {
    const { code, stderr } = await runCli(args);
    expect(stderr).toMatch(said);
    expect(code).toBe(EXIT.usage);
  });
});

describe('next steps', () => {
  it('of an archive that was given twice to the action say that there are two', async () => {
    const outcome = await runAction({ ...inputs, archive: 'a.tar\nb.tar' });
    expectRefusal(outcome, 'INPUT_INVALID', /`archive`, which takes one value, has 2 lines/);
  });

  it.each<[what: string, input: Inputs, step: RegExp]>([
    ['from the working directory', { inventory: 'gone.yaml' }, /correct the path, which is looked for from \/\S+/],
    ['on the machine', { inventory: at('gone.yaml') }, /looked for on this machine, or have an earlier step write/],
    [
      'with a sign for the home directory',
      { 'ssh-known-hosts-file': '~/known_hosts', 'ssh-known-hosts': '' },
      /only a shell knows `~`/,
    ],
    ['that is a directory', { inventory: directory }, /name a file in that directory/],
  ])('of a file that cannot be read say where it was looked for: %s', async (_what, input, step) => {
    const { log, code } = await push({ ...inputs, ...input });
    expect(/^Next step: (.*) \[INPUT_INVALID\]$/m.exec(log)?.[1]).toMatch(step);
    expect(code).toBe(EXIT.usage);
  });

  it('of a host key that has changed name the line and its file', async () => {
    const server = await startServer();
    try {
      const { host, port } = server.target;
      await writeFile(
        at('known_hosts'),
        `# nodes\n[${host}]:${port} ${KEYS.rsa.publicKey}\n[${host}]:${port} ${KEYS.user.publicKey}\n`,
      );
      const node = { ...inputs, nodes: `deploy@${host}:${port}`, 'ssh-known-hosts': '' };
      const outcome = await push({ ...node, 'ssh-known-hosts-file': at('known_hosts') });
      expect(outcome.log).toContain(`line 2 of ${at('known_hosts')}`);
      expect(outcome.log).toMatch(
        /^Next step: .*correct line \d of \S+\/known_hosts, .*ssh-keyscan -p \d+ \S+.* \[SSH_HOST_KEY_CHANGED\]$/m,
      );
      const text = `[${host}]:${port} ${KEYS.user.publicKey}`;
      expect((await push({ ...node, 'ssh-known-hosts': text })).log).toContain('correct line 1 of `ssh-known-hosts`');
    } finally {
      await server.close();
    }
  });

  it('of an inventory come in one pass: form, nodes, settings and their values', async () => {
    const text =
      'nodes:\n  - [a]\n  - w 1\n  - { host: w2, prot: 22 }\nsettings:\n  ssh-port: x\n  nope: 1\n  smoke: { a: b }\n';
    await writeFile(at('inventory.yaml'), text);
    const { nodes: _, ...rest } = inputs;
    const { log, code } = await push({ ...rest, inventory: at('inventory.yaml') });
    for (const line of [
      /inventory\.yaml:2: nodes\.0: write `key: value` here/,
      /inventory\.yaml:3: "w 1" is not a node/,
      /inventory\.yaml:4: nodes\.2\.prot: there is no such key/,
      /inventory\.yaml:6: `ssh-port` must be a port/,
      /inventory\.yaml:7: there is no setting `nope`/,
      /inventory\.yaml:8: settings\.smoke: /,
    ]) {
      expect(log).toMatch(line);
    }
    expect(code).toBe(EXIT.usage);
  });
});
