import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VERSION } from '../../src/version.ts';
import { type Inputs, push, runAction, runCli, runPost } from '../shipped.ts';
import { generateKey, KEYS, startServer, type TestServer } from '../ssh/server.ts';
import { dockerArchive, gzipped, sampleImage, sampleLayer, writeTar } from '../unit/image/archives.ts';
import { MAJORS, nodeOf } from './node-versions.ts';
import { expectRefusal } from './refusal.ts';

const INSTALL_MS = 120_000;

let directory: string;
let server: TestServer;
let inputs: Inputs;
let imageId: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'kube-sideload-versions-'));
  const image = sampleImage([gzipped(await sampleLayer('etc/one')), await sampleLayer('etc/two')]);
  imageId = image.imageId;
  // A server to log in to for real, with whatever cryptography this Node has, and that knows no `sh`.
  server = await startServer({
    hostKeys: [KEYS.ed25519, KEYS.ecdsa, KEYS.rsa],
    exec: ({ channel }) => {
      channel.stderr.write('sh: not found\n');
      channel.exit(127);
      channel.end();
    },
  });
  inputs = {
    archive: await writeTar(join(directory, 'app.tar'), dockerArchive([[['app:1'], image]], 'docker')),
    nodes: `deploy@${server.target.host}:${server.target.port}=w1`,
    'ssh-private-key': KEYS.user.privateKey,
    'ssh-known-hosts': server.knownHosts,
    smoke: 'none',
  };
});

afterAll(async () => {
  await server.close();
  await rm(directory, { recursive: true, force: true });
});

describe.each(MAJORS)('on Node %d', major => {
  let node: string;
  beforeAll(async () => {
    node = await nodeOf(major);
  }, INSTALL_MS);

  it('the command line starts', async () => {
    expect(await runCli(['--version'], { node })).toMatchObject({ code: 0, stdout: `${VERSION}\n`, stderr: '' });
    expect((await runCli(['--help'], { node })).stdout).toContain('Usage:');
  });

  it('an image is opened, a node is logged in to, and what it says is reported', async () => {
    const outcome = await push(inputs, { node });
    expectRefusal(outcome, 'REMOTE_COMMAND_FAILED', /sh: not found/);
    expect(outcome.log).toContain(`image ID ${imageId}`);
    expect(outcome.outputs['image-ids']).toBe('{}');
    expect(outcome.nodes).toMatchObject([{ node: 'w1', error: { code: 'REMOTE_COMMAND_FAILED' } }]);
  });

  it('an encrypted key is opened, and logs in', async () => {
    const key = generateKey('ed25519', 'open sesame');
    const encrypted = { ...inputs, 'ssh-private-key': key.privateKey, 'ssh-key-passphrase': 'open sesame' };
    expectRefusal(await push(encrypted, { node }), 'REMOTE_COMMAND_FAILED', /sh: not found/);
  });

  it('the action runs, and its post step after it', async () => {
    const outcome = await runAction(inputs, { node });
    expectRefusal(outcome, 'REMOTE_COMMAND_FAILED', /sh: not found/);
    expect(outcome.summary).toContain('kube-sideload: failed');
    expect(await runPost(outcome, inputs, { node })).toMatchObject({ code: 0, log: '' });
  });

  it('nothing is deprecated or experimental', async () => {
    const { stderr } = await push(inputs, { node });
    expect(stderr).not.toMatch(/Warning|deprecat/i);
  });
});
