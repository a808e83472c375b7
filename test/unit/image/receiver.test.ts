import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SideloadError } from '../../../src/errors.ts';
import { type Digest, digestOf } from '../../../src/image/digest.ts';
import type { ReceiverStore } from '../../../src/image/received.ts';
import { openReceiver, type Receiver } from '../../../src/image/receiver.ts';
import { openScratch, type Scratch } from '../../../src/image/scratch.ts';
import { bytesOf } from './opening.ts';

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const never = new AbortController().signal;
const layer = Buffer.concat([Buffer.from('a tar\0'), randomBytes(3_000_000)]);
const digest = digestOf(layer);
const other = digestOf('something else');

let directory = '';
let scratch: Scratch;
let receiver: Receiver;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'kube-sideload-receiver-'));
  scratch = await openScratch(directory, () => {}, never);
  receiver = await openReceiver('kube-sideload', scratch, never);
});
afterEach(async () => {
  await receiver.close();
  await scratch.close();
  expect(await readdir(directory)).toEqual([]);
  await rm(directory, { recursive: true });
});

type Options = Omit<RequestInit, 'body'> & { readonly body?: Buffer | string | ReadableStream };

function request(method: string, path: string, { body, ...options }: Options = {}): Promise<Response> {
  const init: RequestInit & { duplex: 'half' } = { method, duplex: 'half', ...options };
  if (body !== undefined) init.body = Buffer.isBuffer(body) ? new Uint8Array(body) : body;
  return fetch(path.startsWith('/') ? `http://${receiver.host}${path}` : `${base()}/${path}`, init);
}

const base = (repository = receiver.repository) => `http://${receiver.host}/v2/${repository}`;

async function begin(): Promise<string> {
  const response = await request('POST', 'blobs/uploads/');
  expect(response.status).toBe(202);
  return response.headers.get('location') ?? expect.unreachable('no Location');
}

async function refusalOf(response: Promise<Response>): Promise<unknown> {
  const { status, body } = await response.then(async answer => ({
    status: answer.status,
    body: (await answer.json()) as { errors: { code: string }[] },
  }));
  expect(body.errors).toHaveLength(1);
  return [status, body.errors[0]?.code];
}

/** The digest of what whoever reads the image gets of a layer. */
async function received(wanted: Digest): Promise<Digest> {
  const file = receiver.blobs.get(wanted) ?? expect.unreachable('it has not arrived');
  return digestOf(await bytesOf(file.open()));
}

async function filesIn(): Promise<readonly string[]> {
  return await readdir(scratch.directory);
}

describe('a blob is received', () => {
  const gzipped = gzipSync(layer, { level: 1 });
  const id = digestOf(gzipped);

  it('by POST and PUT', async () => {
    const answer = await request('PUT', `${await begin()}?digest=${id}`, { body: gzipped });
    expect(answer.status).toBe(201);
    expect(answer.headers.get('docker-content-digest')).toBe(id);
    expect(answer.headers.get('location')).toBe(`/v2/${receiver.repository}/blobs/${id}`);
    expect(await received(id)).toBe(id);
  });

  it('by one POST', async () => {
    expect((await request('POST', `blobs/uploads/?digest=${id}`, { body: gzipped })).status).toBe(201);
    expect(await received(id)).toBe(id);
  });

  it('by one PATCH without length or range, as docker sends it', async () => {
    const location = await begin();
    const body = new ReadableStream({
      start(controller) {
        for (let at = 0; at < gzipped.length; at += 10_000) controller.enqueue(gzipped.subarray(at, at + 10_000));
        controller.close();
      },
    });
    const answer = await request('PATCH', location, { body });
    expect([answer.status, answer.headers.get('range')]).toEqual([202, `0-${gzipped.length - 1}`]);
    expect((await request('PUT', `${location}?digest=${id}`)).status).toBe(201);
    expect(await received(id)).toBe(id);
  });

  it('in chunks, the last one with PUT, and tells meanwhile how far it is', async () => {
    const location = await begin();
    const [first, last] = [gzipped.subarray(0, 2_000_000), gzipped.subarray(2_000_000)];
    await request('PATCH', location, { body: first, headers: { 'content-range': `0-${first.length - 1}` } });
    const status = await request('GET', location);
    expect([status.status, status.headers.get('range')]).toEqual([204, `0-${first.length - 1}`]);
    const range = { 'content-range': `${first.length}-${gzipped.length - 1}` };
    expect((await request('PUT', `${location}?digest=${id}`, { body: last, headers: range })).status).toBe(201);
    expect(await received(id)).toBe(id);
  });

  it('many at a time', async () => {
    const blobs = Array.from({ length: 8 }, () => gzipSync(randomBytes(1_500_000), { level: 1 }));
    const answers = blobs.map(async body => request('PUT', `${await begin()}?digest=${digestOf(body)}`, { body }));
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual(blobs.map(() => 201));
    for (const id of blobs.map(digestOf)) expect(await received(id)).toBe(id);
  });

  it('no faster than it is stored', async () => {
    let goOn = () => {};
    const gate = new Promise<void>(resolve => {
      goOn = resolve;
    });
    await receiver.close();
    const write: Scratch['write'] = async (open, signal) => {
      await gate;
      return await scratch.write(open, signal);
    };
    receiver = await openReceiver('kube-sideload', { ...scratch, write }, never);
    const chunk = Buffer.alloc(1 << 20, 'a\0');
    let sentChunks = 0;
    const body = new ReadableStream({
      pull(controller) {
        sentChunks += 1;
        if (sentChunks > 200) controller.close();
        else controller.enqueue(chunk);
      },
    });
    const answer = request('PATCH', await begin(), { body });
    // Full buffers all the way: between two looks nothing moves.
    let before = -1;
    const stands = () => {
      const isSame = sentChunks === before && sentChunks > 0;
      before = sentChunks;
      return isSame;
    };
    await expect.poll(stands).toBe(true);
    expect(sentChunks).toBeLessThan(50);
    goOn();
    expect((await answer).headers.get('range')).toBe(`0-${200 * chunk.length - 1}`);
  });

  it('and compressed when it is not yet', async () => {
    expect((await request('POST', `blobs/uploads/?digest=${digest}`, { body: layer })).status).toBe(201);
    expect(receiver.blobs.get(digest)).toMatchObject({
      sizeBytes: layer.length,
      stored: { digest, compression: 'none', blob: { compression: 'zstd' } },
    });
  });

  it('into memory when it is JSON', async () => {
    const config = Buffer.from(JSON.stringify({ os: 'linux' }));
    await request('POST', `blobs/uploads/?digest=${digestOf(config)}`, { body: config });
    expect(receiver.blobs.get(digestOf(config))?.stored).toBeUndefined();
    const answer = await request('GET', `blobs/${digestOf(config)}`);
    expect(await answer.text()).toBe(config.toString());
  });

  it('into the store when it only begins like JSON, or is too big for a config', async () => {
    const tar = Buffer.concat([Buffer.from('{app}/file'), Buffer.alloc(1000)]);
    const big = Buffer.from(`{"a":"${'x'.repeat(5 << 20)}"}`);
    for (const body of [tar, big]) {
      expect((await request('POST', `blobs/uploads/?digest=${digestOf(body)}`, { body })).status).toBe(201);
      expect(receiver.blobs.get(digestOf(body))).toMatchObject({
        sizeBytes: body.length,
        stored: { compression: 'none' },
      });
    }
  });

  it('after a mount was asked for, which only offers an upload', async () => {
    const answer = await request('POST', `blobs/uploads/?mount=${id}&from=other/image`);
    expect(answer.status).toBe(202);
    expect((await request('PUT', `${answer.headers.get('location')}?digest=${id}`, { body: gzipped })).status).toBe(
      201,
    );
  });
});

describe('a blob that is there already', () => {
  it('is not asked for again, and belongs to the image then', async () => {
    const stored = await scratch.write(() => Readable.from([layer]), never);
    const answer = await request('HEAD', `blobs/${digest}`);
    expect([answer.status, answer.headers.get('docker-content-digest')]).toEqual([200, digest]);
    expect(answer.headers.get('content-length')).toMatch(/^\d+$/);
    expect(receiver.blobs.get(digest)?.stored).toBe(stored);
  });

  it('is proven when it is uploaded once more, so that it is found by its diffID', async () => {
    const kept = new Map<Digest, Digest>();
    const store: ReceiverStore = {
      ...scratch,
      keep: async (content, diffId) => void kept.set(diffId, content.digest),
    };
    await receiver.close();
    receiver = await openReceiver('kube-sideload', store, never);
    const gzipped = gzipSync(layer, { level: 1 });
    const upload = (body: Buffer) => request('POST', `blobs/uploads/?digest=${digestOf(body)}`, { body });
    expect((await upload(gzipped)).status).toBe(201);
    expect(kept.size).toBe(0);
    expect((await upload(gzipped)).status).toBe(201);
    expect([...kept]).toEqual([[digest, digestOf(gzipped)]]);
    const broken = gzipped.subarray(0, -100);
    for (const _ of [1, 2]) expect((await upload(broken)).status).toBe(201);
    expect(kept.size).toBe(1);
  });

  it('is not handed out: this is no registry', async () => {
    await request('POST', `blobs/uploads/?digest=${digest}`, { body: layer });
    expect(await refusalOf(request('GET', `blobs/${digest}`))).toEqual([405, 'UNSUPPORTED']);
  });
});

describe('an upload is refused', () => {
  it.each(['POST', 'PUT'])('when its content has another digest (%s)', async method => {
    const path = method === 'POST' ? 'blobs/uploads/' : await begin();
    expect(await refusalOf(request(method, `${path}?digest=${other}`, { body: layer }))).toEqual([
      400,
      'DIGEST_INVALID',
    ]);
    expect((await request('HEAD', `blobs/${other}`)).status).toBe(404);
    expect(receiver.failed.aborted).toBe(false);
  });

  it('when the digest is none', async () => {
    for (const text of ['', 'sha256:abc', `sha512:${'0'.repeat(128)}`, `${digest}/..`]) {
      const answer = request('PUT', `${await begin()}?digest=${text}`, { body: 'x' });
      expect(await refusalOf(answer)).toEqual([400, 'DIGEST_INVALID']);
    }
  });

  it('when a chunk is not the next one, and goes on with the right one', async () => {
    const location = await begin();
    const patch = (range: string, body: Buffer) =>
      request('PATCH', location, { body, headers: { 'content-range': range } });
    expect(await refusalOf(patch('5-8', Buffer.from('1234')))).toEqual([416, 'BLOB_UPLOAD_INVALID']);
    expect(await refusalOf(patch('bytes 0-3', Buffer.from('1234')))).toEqual([416, 'BLOB_UPLOAD_INVALID']);
    expect(await refusalOf(patch('0-9', Buffer.from('1234')))).toEqual([400, 'SIZE_INVALID']);
    expect((await patch('0-3', Buffer.from('1234'))).status).toBe(202);
    expect(await refusalOf(patch('0-3', Buffer.from('1234')))).toEqual([416, 'BLOB_UPLOAD_INVALID']);
    const id = digestOf('12345');
    expect(
      (await request('PUT', `${location}?digest=${id}`, { body: '5', headers: { 'content-range': '4-4' } })).status,
    ).toBe(201);
  });

  it('when it is not known, was cancelled, or is finished', async () => {
    const cancelled = await begin();
    await request('PATCH', cancelled, { body: layer });
    expect((await request('DELETE', cancelled)).status).toBe(204);
    const finished = await begin();
    await request('PUT', `${finished}?digest=${digestOf('x')}`, { body: 'x' });
    for (const location of [cancelled, finished, 'blobs/uploads/0']) {
      for (const method of ['GET', 'PATCH', 'PUT', 'DELETE']) {
        const path = method === 'PUT' ? `${location}?digest=${digest}` : location;
        expect(await refusalOf(request(method, path))).toEqual([404, 'BLOB_UPLOAD_UNKNOWN']);
      }
    }
    await expect.poll(filesIn).toHaveLength(1);
  });

  it('when whoever sends it breaks off; nothing of it stays', async () => {
    const location = await begin();
    const socket = connect({ host: '127.0.0.1', port: Number(receiver.host.split(':')[1]) });
    await once(socket, 'connect');
    socket.write(`PATCH ${location} HTTP/1.1\r\nHost: x\r\nContent-Length: ${layer.length}\r\n\r\n`);
    socket.write(layer.subarray(0, 2_000_000));
    await expect.poll(filesIn).toHaveLength(1);
    socket.destroy();
    await expect.poll(filesIn).toEqual([]);
    expect(await refusalOf(request('GET', location))).toEqual([404, 'BLOB_UPLOAD_UNKNOWN']);
    expect(receiver.failed.aborted).toBe(false);
  });

  it('when nobody can say what is stored', async () => {
    await receiver.close();
    const broken = new SideloadError('INTERNAL', 'no answer');
    receiver = await openReceiver('kube-sideload', { ...scratch, find: () => Promise.reject(broken) }, never);
    expect((await request('HEAD', `blobs/${digest}`)).status).toBe(500);
    expect(receiver.failed.reason).toBe(broken);
  });

  it('when it cannot be stored, and whoever waits for the image learns why', async () => {
    const full = new SideloadError('DISK_FULL', 'no space left');
    await receiver.close();
    const write: Scratch['write'] = async open => {
      open().destroy();
      throw full;
    };
    receiver = await openReceiver('kube-sideload', { ...scratch, write }, never);
    const answer = request('POST', `blobs/uploads/?digest=${digest}`, { body: layer });
    expect(
      await answer.then(
        ({ status }) => status,
        () => 'broken off',
      ),
    ).toSatisfy(end => end === 500 || end === 'broken off');
    expect(receiver.failed.reason).toBe(full);
  });
});

describe('a manifest', () => {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, config: {}, layers: [] }));
  const id = digestOf(bytes);
  const put = (reference: string, body: Buffer | string = bytes, type = MANIFEST_TYPE) =>
    request('PUT', `manifests/${reference}`, { body, headers: { 'content-type': type } });

  it.each(['v1', id])('is received as %s, and handed out again', async reference => {
    const answer = await put(reference);
    expect([answer.status, answer.headers.get('docker-content-digest')]).toEqual([201, id]);
    expect(answer.headers.get('location')).toBe(`/v2/${receiver.repository}/manifests/${id}`);
    for (const method of ['GET', 'HEAD']) {
      const again = await request(method, `manifests/${reference}`);
      expect([again.status, again.headers.get('content-type')]).toEqual([200, MANIFEST_TYPE]);
      expect(again.headers.get('content-length')).toBe(String(bytes.length));
      expect(await again.text()).toBe(method === 'GET' ? bytes.toString() : '');
    }
    expect(receiver.manifests.get(id)).toMatchObject({ mediaType: MANIFEST_TYPE, bytes });
    expect(receiver.tags.get('v1')).toBe(reference === 'v1' ? id : undefined);
  });

  it('is refused when it is not what its digest says, no JSON, or under no tag', async () => {
    expect(await refusalOf(put(other))).toEqual([400, 'DIGEST_INVALID']);
    expect(await refusalOf(put('v1', '{'))).toEqual([400, 'MANIFEST_INVALID']);
    expect(await refusalOf(put('.v1'))).toEqual([400, 'NAME_INVALID']);
    expect(receiver.manifests.size + receiver.tags.size).toBe(0);
  });

  it('is refused when it has more than 4 MiB, and so are many that fill the memory', async () => {
    const json = (size: number, text: string) => JSON.stringify({ text, x: 'x'.repeat(size) });
    expect((await put('v1', json(4 << 20, 'big'))).status).toBe(413);
    const statuses: number[] = [];
    for (let count = 0; count < 18; count++) statuses.push((await put('v1', json(4_000_000, String(count)))).status);
    expect(statuses.slice(0, 16)).toEqual(Array(16).fill(201));
    expect(statuses.at(-1)).toBe(413);
  });

  it('that is not there is said to be unknown', async () => {
    expect(await refusalOf(request('GET', 'manifests/v1'))).toEqual([404, 'MANIFEST_UNKNOWN']);
    expect((await request('HEAD', `manifests/${id}`)).status).toBe(404);
  });
});

describe('whoever leaves uploads behind', () => {
  const stalling = () => new ReadableStream({ start: it => it.enqueue(Buffer.alloc(70_000)) });

  it('in the middle of one is not waited for: nothing of it stays, and others go on', async () => {
    await receiver.close();
    receiver = await openReceiver('kube-sideload', scratch, never, { maxUploads: 8, idleMs: 1500 });
    expect(await refusalOf(request('PATCH', await begin(), { body: stalling() }))).toEqual([500, 'UNKNOWN']);
    await expect.poll(filesIn).toEqual([]);
    expect(receiver.failed.aborted).toBe(false);
    expect((await request('PUT', `${await begin()}?digest=${digest}`, { body: layer })).status).toBe(201);
  });

  it('between two requests finds it gone', async () => {
    await receiver.close();
    receiver = await openReceiver('kube-sideload', scratch, never, { maxUploads: 8, idleMs: 50 });
    const location = await begin();
    await expect.poll(() => request('GET', location).then(({ status }) => status)).toBe(404);
  });

  it('gets no more than there is room for, and whoever ends one makes room', async () => {
    await receiver.close();
    receiver = await openReceiver('kube-sideload', scratch, never, { maxUploads: 2, idleMs: 60_000 });
    const [first] = [await begin(), await begin()];
    expect(await refusalOf(request('POST', 'blobs/uploads/'))).toEqual([429, 'TOOMANYREQUESTS']);
    expect((await request('DELETE', first)).status).toBe(204);
    await begin();
  });
});

describe('nothing else is there', () => {
  it('but the answer that a registry is here', async () => {
    expect((await request('GET', '/v2/')).status).toBe(200);
    expect(receiver.requests()).toBe(0);
  });

  it.each(['kube-sideload/image', 'image', `kube-sideload-${'0'.repeat(32)}/image`])('no repository %s', async name => {
    for (const path of ['manifests/v1', `blobs/${digest}`, 'blobs/uploads/']) {
      const answer = fetch(`${base(name)}/${path}`, { method: path.endsWith('/') ? 'POST' : 'GET' });
      expect(await refusalOf(answer)).toEqual([404, 'NAME_UNKNOWN']);
    }
  });

  it.each(['/', '/v2/_catalog', '/metrics', '//', '/v2/%'])('no page %s', async path => {
    expect(await refusalOf(request('GET', path))).toEqual([404, 'NAME_UNKNOWN']);
  });

  it('no list of tags, and no deleting', async () => {
    expect(await refusalOf(request('GET', 'tags/list'))).toEqual([404, 'NAME_UNKNOWN']);
    expect(await refusalOf(request('DELETE', 'manifests/v1'))).toEqual([405, 'UNSUPPORTED']);
    expect(await refusalOf(request('DELETE', `blobs/${digest}`))).toEqual([405, 'UNSUPPORTED']);
  });

  it('no server on another address than loopback, and none after the end', async () => {
    expect(receiver.host).toMatch(/^127\.0\.0\.1:\d+$/);
    const location = await begin();
    const half = request('PATCH', location, {
      body: new ReadableStream({ start: it => it.enqueue(Buffer.alloc(70_000)) }),
    });
    await expect.poll(filesIn).toHaveLength(1);
    await Promise.all([expect(half).rejects.toThrow(), receiver.close()]);
    expect(await filesIn()).toEqual([]);
    await expect(request('GET', '/v2/')).rejects.toThrow();
    receiver = await openReceiver('kube-sideload', scratch, never);
  });
});
