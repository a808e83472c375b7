/** What others have worded, in everything that `dist/` shows: it is text there and nothing else. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ALL_HOSTILE_TEXTS, harmIn, harmInMarkdown } from '../hostile/texts.ts';
import { type ActionOutcome, type Inputs, type Options, push, runAction, runCli } from '../shipped.ts';
import {
  dockerArchive,
  named,
  ociArchive,
  type SampleImage,
  sampleImage,
  sampleLayer,
  sha256,
  writeTar,
} from '../unit/image/archives.ts';
import { unreachable } from './refusal.ts';

const TEXT = ALL_HOSTILE_TEXTS;
/** Neither an argument nor a variable can have a NUL. */
const GIVEN = TEXT.replaceAll('\0', '');

const directory = await mkdtemp(join(tmpdir(), 'kube-sideload-words-'));
const at = (name: string) => join(directory, name);
let inputs: Inputs;

/** An image whose config says what it likes, wherever a config says anything. */
async function imageOf(changes: object): Promise<SampleImage> {
  const image = sampleImage([await sampleLayer('etc/one')]);
  const said = { author: TEXT, comment: TEXT, config: { Labels: { [TEXT]: TEXT }, User: TEXT, Cmd: [TEXT] } };
  const config = Buffer.from(JSON.stringify({ ...JSON.parse(image.config.toString()), ...said, ...changes }));
  return { ...image, config, imageId: `sha256:${sha256(config)}` };
}

beforeAll(async () => {
  inputs = await unreachable(directory);
  const said = await imageOf({});
  await writeTar(at('os.tar'), dockerArchive([[['app:1'], await imageOf({ os: TEXT })]], 'docker'));
  await writeTar(at('architecture.tar'), dockerArchive([[['app:1'], await imageOf({ architecture: TEXT })]], 'docker'));
  await writeTar(at('variant.tar'), dockerArchive([[['app:1'], await imageOf({ variant: TEXT })]], 'docker'));
  await writeTar(at('tags.tar'), dockerArchive([[[TEXT, `${TEXT}:1`], said]], 'docker'));
  await writeTar(at('labels.tar'), dockerArchive([[['app:1'], said]], 'docker'));
  await writeTar(
    at('index.tar'),
    ociArchive([{ image: said, annotations: named(TEXT), platform: { os: TEXT, architecture: TEXT } }]),
  );
  await writeTar(
    at('diff-ids.tar'),
    dockerArchive([[['app:1'], await imageOf({ rootfs: { diff_ids: [TEXT] } })]], 'docker'),
  );
  await writeTar(at('manifest.tar'), [{ name: 'manifest.json', content: Buffer.from(TEXT) }]);
  await writeTar(at('link.tar'), [{ name: 'manifest.json', type: 'symlink', linkname: TEXT.slice(0, 90) }]);
  const quoted = JSON.stringify(TEXT);
  await writeFile(at('key.yaml'), `nodes:\n  ${quoted}: 1\n`);
  await writeFile(at('node.yaml'), `nodes: [${quoted}]\n`);
  await writeFile(at('setting.yaml'), `nodes: [w1]\nsettings:\n  ${quoted}: ${quoted}\n  namespace: ${quoted}\n`);
  await writeFile(at('not.yaml'), `nodes: [${TEXT}\n? [${quoted}]\n: {${quoted}: }}\n`);
  await writeFile(at('complex.yaml'), `nodes: [w1]\nsettings: {? [${quoted}] : 1}\n`);
});

afterAll(() => rm(directory, { recursive: true, force: true }));

const FILES: readonly (readonly [what: string, inputs: Inputs])[] = [
  ...['os', 'architecture', 'variant', 'tags', 'labels', 'index', 'diff-ids', 'manifest', 'link'].map(
    name => [`an archive with a hostile ${name}`, { archive: at(`${name}.tar`) }] as const,
  ),
  ...['key', 'node', 'setting', 'not', 'complex'].map(
    name => [`an inventory with a hostile ${name}`, { inventory: at(`${name}.yaml`), nodes: '' }] as const,
  ),
  ['inputs that are hostile', { images: GIVEN, nodes: GIVEN, namespace: GIVEN, 'smoke-expect': GIVEN, smoke: 'pod' }],
  ['a manifest that is hostile', { 'smoke-manifest': `kind: Pod\nspec: ${JSON.stringify(GIVEN)}\n`, smoke: 'pod' }],
  ['known hosts that are hostile', { 'ssh-known-hosts': GIVEN }],
  ['a kubeconfig that is hostile', { kubeconfig: at('not.yaml'), smoke: 'pod', kubectl: GIVEN }],
];

function expectSound({ log, outputs, summary, state }: ActionOutcome): void {
  expect(harmIn(log)).toEqual([]);
  expect(harmInMarkdown(summary)).toEqual([]);
  expect(harmIn(Object.values({ ...outputs, ...state }).join('\n'))).toEqual([]);
}

describe.each(FILES)('%s', (_what, changes) => {
  it('fails the job with text and nothing else, in a shell, in GitLab and on GitHub', async () => {
    const reports = {
      'report-json': at('report.json'),
      'report-junit': at('report.xml'),
      'report-dotenv': at('report.env'),
    };
    const given = { ...inputs, ...changes, ...reports };
    const outcomes = await Promise.all([
      push(given),
      push(given, { env: { GITLAB_CI: 'true' } }),
      runAction(given),
      runAction(given, { env: { GITEA_ACTIONS: 'true' } }),
    ]);
    for (const outcome of outcomes) {
      expect(outcome.code, outcome.log).not.toBe(0);
      expect(harmIn(outcome.log), outcome.log).toEqual([]);
      if ('summary' in outcome) expectSound(outcome);
    }
    for (const file of Object.values(reports)) {
      expect(harmIn(await readFile(file, 'utf8'))).toEqual([]);
    }
  });
});

describe('what libraries and Node itself say past us', () => {
  const told = async (
    name: string,
    script: string,
    run: (options: Options) => Promise<{ readonly log: string; readonly stdout: string }>,
  ) => {
    await writeFile(at(`${name}.cjs`), script);
    return await run({ env: { NODE_OPTIONS: `--require=${at(`${name}.cjs`)}` } });
  };
  const quoted = JSON.stringify(`the node said ${TEXT}`);
  const printing = `setTimeout(() => { console.log(${quoted}); console.error('%s', ${quoted}); process.emitWarning(${quoted}); });`;

  it('is text: what they print, and warnings', async () => {
    const action = await told('printing', printing, options => runAction(inputs, options));
    expect(harmIn(action.log)).toEqual([]);
    expect(action.log.match(/the node said/g)).toHaveLength(3);
    const json = await told('printing', printing, options => runCli(['push', '--json', '--nodes=w1'], options));
    expect(JSON.parse(json.stdout)).toMatchObject({ succeeded: false });
    expect(harmIn(json.log)).toEqual([]);
  });

  it.each([
    ['nobody catches', `setTimeout(() => { throw new Error(${quoted}); });`],
    ['a promise brings that nobody waits for', `setTimeout(() => { Promise.reject(new Error(${quoted})); });`],
  ])('is text: an error that %s, which fails the job', async (_what, script) => {
    for (const run of [(options: Options) => runAction(inputs, options), (options: Options) => push(inputs, options)]) {
      const outcome = await told('throwing', script, run);
      expect(outcome).toMatchObject({ code: 1 });
      expect(outcome.log).toContain('[INTERNAL]');
      expect(outcome.log).toContain('the node said');
      expect(harmIn(outcome.log)).toEqual([]);
    }
  });

  it('is nothing, of a directory in PATH that cannot be read', async () => {
    const PATH = `${at('app.tar')}:/root/../proc/1/root/nope:${process.env.PATH}`;
    const outcome = await runAction({ ...inputs, smoke: 'pod', kubeconfig: at('node.yaml') }, { env: { PATH } });
    expect(outcome.log).not.toMatch(/EACCES|ENOTDIR|Unexpected error/);
  });
});

it('Gitea folds nothing of ours away: the group that its runner has opened is closed first', async () => {
  const gitea = await runAction({ ...inputs, nodes: '' }, { env: { GITEA_ACTIONS: 'true' } });
  expect(gitea.stdout.replaceAll(/^::add-mask::.*\n/gm, '')).toMatch(/^::endgroup::\nerror: /);
  const github = await runAction({ ...inputs, nodes: '' });
  expect(github.stdout.replaceAll(/^::add-mask::.*\n/gm, '')).toMatch(/^::error /);
});
