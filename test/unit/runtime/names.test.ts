import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import type { NodeFacts } from '../../../src/node/facts.ts';
import { runtimeOf } from '../../../src/runtime/detect.ts';

const NAME = 'docker.io/library/app:1';

/** A client program that says each of these words once, and the last one for ever. */
interface Client {
  readonly runtime: 'containerd' | 'cri-o' | 'docker';
  readonly variables: Readonly<Record<string, string>>;
  /** As functions of the shell. */
  readonly says: Readonly<Record<'there' | 'absent' | 'silent', string>>;
}

const CLIENTS: Readonly<Record<string, Client>> = {
  ctr: {
    runtime: 'containerd',
    variables: { CTR: 'client' },
    says: { there: `echo ${NAME}`, absent: 'true', silent: 'echo cannot dial >&2; false' },
  },
  podman: {
    runtime: 'cri-o',
    variables: { PODMAN: 'client' },
    says: { there: 'true', absent: 'return 1', silent: 'return 125' },
  },
  'crictl beside skopeo': {
    runtime: 'cri-o',
    variables: { CRICTL: 'client', PODMAN: '' },
    says: {
      there: 'echo {}',
      absent: `echo 'no such image "${NAME}" present' >&2; false`,
      silent: 'echo connection refused >&2; false',
    },
  },
  docker: {
    runtime: 'docker',
    variables: { DOCKER: 'client' },
    says: {
      there: 'echo []',
      absent: `echo 'Error response from daemon: No such image: ${NAME}' >&2; false`,
      silent: 'echo Cannot connect to the Docker daemon >&2; false',
    },
  },
};

/** Asks for the name until there is an answer, without waiting. */
function ask({ runtime, variables, says }: Client, answers: readonly (keyof Client['says'])[]) {
  const cases = answers.map((answer, index) => `${index + 1 < answers.length ? index + 1 : '*'}) ${says[answer]} ;;`);
  const script = `as_root() { "$@"; }
sleep() { count=$((count + 1)); }
count=1
client() { case $count in ${cases.join(' ')} esac; }
${runtimeOf(runtime).names({ privilege: 'root' } as NodeFacts)}
if has_name ${NAME}; then echo there; else echo absent; fi`;
  const { stdout, stderr, status } = spawnSync('/bin/sh', ['-c', script], {
    env: { ...variables, PATH: process.env.PATH, SOCKET: '/run/cri.sock' },
    encoding: 'utf8',
  });
  return status === 0 ? stdout.trim() : stderr;
}

describe.each(Object.entries(CLIENTS))('whether a name is there, by %s', (_name, client) => {
  it('is what it says', () => {
    expect(ask(client, ['there'])).toBe('there');
    expect(ask(client, ['absent'])).toBe('absent');
  });

  it('is asked again while it says nothing', () => {
    expect(ask(client, ['silent', 'silent', 'there'])).toBe('there');
    expect(ask(client, ['silent', 'silent', 'absent'])).toBe('absent');
  });

  it('is not known when it never does, and the script fails', () => {
    expect(ask(client, ['silent'])).toContain(`does not say whether it has ${NAME}`);
  });
});
