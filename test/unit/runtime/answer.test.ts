import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ERRORS } from '../../../src/errors.ts';
import type { NodeFacts, RuntimeName } from '../../../src/node/facts.ts';
import type { Sections } from '../../../src/node/script.ts';
import { runtimeOf } from '../../../src/runtime/detect.ts';
import { runtimeFault } from '../../../src/runtime/fault.ts';
import { isCutOff } from '../../../src/runtime/instance.ts';
import type { HeldImage } from '../../../src/runtime/runtime.ts';

const NAME = 'docker.io/library/app:1';
const ID = `sha256:${'a'.repeat(64)}`;
const directory = mkdtempSync(join(tmpdir(), 'kube-sideload-answer-'));
const calls = join(directory, 'calls');
afterAll(() => rmSync(directory, { recursive: true }));

/** The client of a runtime as a function of the shell, by what it is asked. */
interface Client {
  readonly runtime: RuntimeName;
  readonly tools: NodeFacts['tools'];
  /** Cases of its arguments. */
  readonly there: string;
  readonly absent: string;
}

const CRI_THERE = `*inspecti*) echo '{"status": {"id": "${ID}", "pinned": false}}' ;;`;
const CRI_ABSENT = `*inspecti*) echo 'no such image "${NAME}" present' >&2; return 1 ;;`;
const CONFIG = '{"os": "linux", "architecture": "amd64"}';

const CLIENTS: Readonly<Record<string, Client>> = {
  'ctr and crictl': {
    runtime: 'containerd',
    tools: { ctr: ['client'], crictl: ['client'] },
    there: `*'ls -q'*) echo ${NAME} ;;
      *' ls '*) echo REF; echo '${NAME} index sha256:${'b'.repeat(64)} 1 KiB linux/amd64 -' ;;
      *check*) echo REF; echo '${NAME} index sha256:b complete (1/1) 1 KiB true' ;;
      *content*sha256:b*) echo '{"config": {"digest": "sha256:${'c'.repeat(64)}"}}' ;;
      *content*sha256:c*) echo '${CONFIG}' ;;
      ${CRI_THERE}`,
    absent: `*'ls -q'*) ;; *) echo REF ;;`,
  },
  'skopeo and crictl': {
    runtime: 'cri-o',
    tools: { skopeo: ['skopeo'], crictl: ['client'] },
    there: CRI_THERE,
    absent: CRI_ABSENT,
  },
  'skopeo, podman and crictl': {
    runtime: 'cri-o',
    tools: { skopeo: ['skopeo'], podman: ['client'], crictl: ['client'] },
    there: `'image exists'*) ;; ${CRI_THERE}`,
    absent: `'image exists'*) echo 'level=warning msg="cgroups-v1 is deprecated"' >&2; return 1 ;; ${CRI_ABSENT}`,
  },
  'docker and crictl': {
    runtime: 'docker',
    tools: { docker: ['client'], crictl: ['client'] },
    there: `'image inspect'*) echo '[{"Id": "${ID}", "Os": "linux", "Architecture": "amd64"}]' ;; ${CRI_THERE}`,
    absent: `'image inspect'*) echo '[]'; echo 'Error response from daemon: No such image: ${NAME}' >&2; return 1 ;;`,
  },
};

const SILENCE = 'rpc error: connection refused';

/** Runs a script with a client that answers calls of these numbers with a complaint, and without waiting. */
function ask(
  client: Client,
  has: 'there' | 'absent',
  script: string,
  isSilent: (call: number) => boolean,
  complaint = SILENCE,
) {
  writeFileSync(calls, '');
  const silent = Array.from({ length: 100 }, (_, call) => call).filter(isSilent);
  const text = `section() { printf '\\n@@ %s\\n' "$1"; }
as_root() { "$@"; }
sleep() { :; }
skopeo() { echo '${CONFIG}'; }
client() {
  call=$(wc -l <${calls})
  echo >>${calls}
  case ' ${silent.join(' ')} ' in *" $call "*) echo '${complaint}' >&2; return 125 ;; esac
  case $* in ${client[has]} esac
}
${script}`;
  return spawnSync('/bin/sh', ['-c', text], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH, ...variables(client) },
  });
}

function factsOf({ runtime, tools }: Client): NodeFacts {
  return {
    runtime: { name: runtime, version: '1' },
    tools,
    criSocket: '/run/cri.sock',
    privilege: 'root',
    imageIds: [],
  } as Partial<NodeFacts> as NodeFacts;
}

function variables(client: Client): Readonly<Record<string, string>> {
  return { ...runtimeOf(client.runtime).inspect(factsOf(client), [NAME]).variables };
}

/** What is held under the name; what is told when the script fails. */
function held(
  client: Client,
  has: 'there' | 'absent',
  isSilent: (call: number) => boolean = () => false,
  complaint = SILENCE,
): HeldImage | undefined | string {
  const runtime = runtimeOf(client.runtime);
  const { status, stdout } = ask(client, has, runtime.inspect(factsOf(client), [NAME]).body, isSilent, complaint);
  return status === 0 ? runtime.held(sectionsOf(stdout), [NAME]).get(NAME) : told(stdout);
}

function sectionsOf(stdout: string): Sections {
  const parts = stdout.split('\n@@ ').slice(1);
  return new Map(parts.map(part => [part.slice(0, part.indexOf('\n')), part.slice(part.indexOf('\n') + 1).trim()]));
}

function told(stdout: string): string {
  const { code, message } = runtimeFault(sectionsOf(stdout), 'w1') ?? expect.unreachable();
  return `${code}: ${message}`;
}

function hasName(
  client: Client,
  has: 'there' | 'absent',
  isSilent: (call: number) => boolean = () => false,
  complaint = SILENCE,
) {
  const names = runtimeOf(client.runtime).names(factsOf(client));
  const script = `${names}\nif has_name ${NAME}; then echo there; else echo absent; fi`;
  const { status, stdout } = ask(client, has, script, isSilent, complaint);
  return status === 0 ? stdout.trim() : told(stdout);
}

describe.each(Object.entries(CLIENTS))('what a node holds, by %s', (_name, client) => {
  it('is what the runtime says', () => {
    const image = { imageId: ID, os: 'linux', architecture: 'amd64', unpacked: true, witness: 'crictl' };
    expect(held(client, 'there')).toMatchObject(image);
    expect(held(client, 'absent')).toBeUndefined();
    expect(hasName(client, 'there')).toBe('there');
    expect(hasName(client, 'absent')).toBe('absent');
  });

  /** As while it restarts; a question that has no answer is asked a second time, for its complaint. */
  it.each([0, 1, 2, 3, 4])('is the same when the runtime is silent from question %i on for a while', first => {
    const isSilent = (call: number) => call >= first && call < first + 6;
    expect(held(client, 'there', isSilent)).toEqual(held(client, 'there'));
    expect(held(client, 'absent', isSilent)).toBeUndefined();
    expect(hasName(client, 'there', isSilent)).toBe('there');
    expect(hasName(client, 'absent', isSilent)).toBe('absent');
  });

  it('is not known when the runtime stays silent, and the script fails', () => {
    const complaint = 'RUNTIME_NOT_RUNNING: the runtime does not answer: rpc error: connection refused';
    expect(held(client, 'there', () => true)).toContain(complaint);
    expect(hasName(client, 'there', () => true)).toContain(complaint);
    expect(hasName(client, 'absent', () => true)).toContain(complaint);
  });

  const asked = () => readFileSync(calls, 'utf8').length;

  it('is not asked for again by who may not ask, and the script fails at once', () => {
    const complaint = 'dial unix /run/cri.sock: connect: permission denied';
    for (const answer of [held, hasName]) {
      expect(answer(client, 'there', () => true, complaint)).toMatch(
        /^RUNTIME_REFUSED: .* does not let \w+ in: .*permission denied/,
      );
      expect(asked()).toBe(2); // the question, and the same for its complaint
    }
    const sudo = 'sudo: a password is required';
    expect(held(client, 'there', () => true, sudo)).toMatch(
      /^SUDO_RIGHT_MISSING: \w+ may not ask the runtime: sudo: a password/,
    );
  });

  it('is not waited for when the runtime answers with an error, unless that passes', () => {
    const complaint = 'rpc error: code = Unknown desc = parsing time "" as "2006"';
    for (const answer of [held, hasName]) {
      expect(answer(client, 'there', () => true, complaint)).toContain(
        `RUNTIME_ERROR: the runtime answers with an error: ${complaint}`,
      );
      expect(asked()).toBe(10);
    }
    expect(held(client, 'there', call => call < 4, complaint)).toEqual(held(client, 'there'));
  });
});

it('an image without a date on a node with Docker has a step of its own', () => {
  const said = 'rpc error: code = Unknown desc = parsing time "" as "2006-01-02T15:04:05Z": cannot parse "" as "2006"';
  expect(runtimeFault(new Map([['runtime-error', said]]), 'w1')?.hint).toContain('`created`');
  expect(runtimeFault(new Map([['runtime-error', 'no']]), 'w1')?.hint).toBe(ERRORS.RUNTIME_ERROR.hint);
});

it('root that is refused is not told to become root', () => {
  const said = (user: string) => new Map([['runtime-refused', `${user}\nconnect: permission denied`]]);
  expect(runtimeFault(said('root'), 'w1')?.hint).toContain('security module');
  expect(runtimeFault(said('deploy'), 'w1')?.hint).toBe(ERRORS.RUNTIME_REFUSED.hint);
});

it.each([
  ['ctr: rpc error: code = Unavailable desc = error reading from server: EOF', true],
  ['Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?', true],
  ['error during connect: Post "http://%2Fvar%2Frun%2Fdocker.sock/v1.51/images/load?quiet=1": EOF', true],
  ['ctr: unrecognized image format', false],
  ['ctr: failed to extract layer sha256:1: unexpected EOF', false],
  ['Error processing tar file(exit status 1): no such file or directory', false],
])('an import that was cut off is told from one that was refused: %s', (said, isLost) => {
  expect(isCutOff(said)).toBe(isLost);
});

it('is not known either when the runtime falls silent between two questions', () => {
  const client = CLIENTS['ctr and crictl'] ?? expect.unreachable();
  for (const first of [1, 2, 3, 4]) {
    expect(held(client, 'there', call => call >= first)).toContain('the runtime does not answer');
  }
});

describe('content that containerd has lost', () => {
  const client = CLIENTS['ctr and crictl'] ?? expect.unreachable();
  const lost = `echo 'ctr: content digest sha256:${'b'.repeat(64)}: not found' >&2; return 1 ;;`;

  it.each(['*check*', '*content*sha256:b*', '*content*sha256:c*'])('is an answer (%s)', question => {
    const answer = held({ ...client, there: `${question}) ${lost} ${client.there}` }, 'there');
    expect(answer).not.toMatchObject({ unpacked: true, os: 'linux' });
    expect(typeof answer).toBe('object');
  });
});
