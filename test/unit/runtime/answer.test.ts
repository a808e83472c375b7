import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { NodeFacts, RuntimeName } from '../../../src/node/facts.ts';
import { runtimeOf } from '../../../src/runtime/detect.ts';
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

/** Runs a script with a client that does not answer calls of these numbers, and without waiting. */
function ask(client: Client, has: 'there' | 'absent', script: string, isSilent: (call: number) => boolean) {
  writeFileSync(calls, '');
  const silent = Array.from({ length: 100 }, (_, call) => call).filter(isSilent);
  const text = `section() { printf '\\n@@ %s\\n' "$1"; }
as_root() { "$@"; }
sleep() { :; }
skopeo() { echo '${CONFIG}'; }
client() {
  call=$(wc -l <${calls})
  echo >>${calls}
  case ' ${silent.join(' ')} ' in *" $call "*) echo 'rpc error: connection refused' >&2; return 125 ;; esac
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
  } as NodeFacts;
}

function variables(client: Client): Readonly<Record<string, string>> {
  return { ...runtimeOf(client.runtime).inspect(factsOf(client), [NAME]).variables };
}

/** What is held under the name; what the script complains of when it fails. */
function held(
  client: Client,
  has: 'there' | 'absent',
  isSilent: (call: number) => boolean = () => false,
): HeldImage | undefined | string {
  const runtime = runtimeOf(client.runtime);
  const { status, stdout, stderr } = ask(client, has, runtime.inspect(factsOf(client), [NAME]).body, isSilent);
  const sections = stdout
    .split('\n@@ ')
    .slice(1)
    .map(part => [part.slice(0, part.indexOf('\n')), part.slice(part.indexOf('\n') + 1).trim()] as const);
  return status === 0 ? runtime.held(new Map(sections), [NAME]).get(NAME) : stderr;
}

function hasName(client: Client, has: 'there' | 'absent', isSilent: (call: number) => boolean = () => false) {
  const names = runtimeOf(client.runtime).names(factsOf(client));
  const script = `${names}\nif has_name ${NAME}; then echo there; else echo absent; fi`;
  const { status, stdout, stderr } = ask(client, has, script, isSilent);
  return status === 0 ? stdout.trim() : stderr;
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
    const complaint = 'the runtime does not answer: rpc error: connection refused';
    expect(held(client, 'there', () => true)).toContain(complaint);
    expect(hasName(client, 'there', () => true)).toContain(complaint);
    expect(hasName(client, 'absent', () => true)).toContain(complaint);
  });
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
