import { SideloadError } from '../errors.ts';

/**
 * What texts of a node may look like. Whoever owns a node, or a process on it, chooses them; they become arguments and
 * variables of later commands, and lines of the log. Nothing that needs quotes in a shell, or means something to it, is in
 * any of them.
 */
const GRAMMARS = {
  /** Absolute, without `..`. */
  path: /^(?!.*\/\.\.(?:\/|$))\/[\w./+@-]{0,1023}$/,
  /** Of a program or its argument: `/usr/local/bin/k3s`, `ctr`. */
  word: /^[\w./+][\w./+-]{0,1023}$/,
  /** Kubernetes: a node's name, which is a DNS subdomain (RFC 1123). */
  'node name': /^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/,
  /** containerd: the ID of a plugin. */
  snapshotter: /^[a-z0-9][a-z0-9._-]{0,63}$/,
  version: /^\w[\w.+~:-]{0,63}$/,
  /** distribution/reference, with the longest name, tag and digest that it allows. */
  reference: /^[A-Za-z0-9][\w.:/@-]{0,511}$/,
} as const satisfies Readonly<Record<string, RegExp>>;

export type Grammar = keyof typeof GRAMMARS;

export function isA(grammar: Grammar, text: string): boolean {
  return GRAMMARS[grammar].test(text);
}

/** How much of a text that is none is shown. */
const SHOWN = 100;

/**
 * @param what whose text it is, as in "the socket of the kubelet"
 * @throws SideloadError PROBE_FAILED
 */
export function checked(grammar: Grammar, text: string, what: string, node: string): string {
  if (!isA(grammar, text)) {
    const shown = JSON.stringify(text.slice(0, SHOWN));
    throw new SideloadError('PROBE_FAILED', `${what} is no ${grammar} that can be used: ${shown}`, {
      node,
      hint: 'Look at the node: somebody has given something a name that no distribution gives.',
    });
  }
  return text;
}
