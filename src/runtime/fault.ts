import { type ErrorCode, SideloadError } from '../errors.ts';
import type { Sections } from '../node/script.ts';

/**
 * Why a question to a runtime has no answer: it is silent, as while it starts or restarts; it does not let the user in; or it
 * answers, with an error. Each is told by the words of its clients, as extended regular expressions for `grep -E` and here.
 */
const REFUSED =
  'connect: permission denied|permission denied while trying to connect|^(sudo|doas): .*(password is required|not allowed|may not|not permitted|have a tty)';
/** gRPC's words, docker's, those of a CRI that is not there yet, and of an image that is only half stored or half removed. */
const SILENT =
  'Unavailable|[Dd]eadline ?[Ee]xceeded|while dialing|error reading from server|transport is closing|[Cc]onnection (refused|reset)|broken pipe|connect to the Docker daemon|during connect|i/o timeout|EOF$|not initialized|unknown service|sock: (connect: )?no such file|not known';

const SECTIONS = { refused: 'runtime-refused', silent: 'runtime-silent', error: 'runtime-error' } as const;

type Kind = keyof typeof SECTIONS;

/**
 * Functions for scripts. `kind_of WORDS` prints which of the three they are. `give_up KIND WORDS` ends the script, and leaves
 * them in a section, for {@link runtimeFault}.
 */
export const FAULT = `
kind_of() {
  if printf '%s\\n' "$1" | grep -Eq '${REFUSED}'; then echo refused
  elif printf '%s\\n' "$1" | grep -Eq '${SILENT}'; then echo silent
  else echo error
  fi
}
give_up() {
  case $1 in
    refused) section ${SECTIONS.refused}; id -un ;;
    silent) section ${SECTIONS.silent} ;;
    *) section ${SECTIONS.error} ;;
  esac
  printf '%s' "$2"
  exit 1
}`;

/** What words of a client mean, as the function for scripts tells it. */
export function kindOf(said: string): Kind {
  return new RegExp(REFUSED, 'm').test(said) ? 'refused' : new RegExp(SILENT, 'm').test(said) ? 'silent' : 'error';
}

/** The error of a script that has given a runtime up; `undefined` for one that failed otherwise. */
export function runtimeFault(sections: Sections, node: string): SideloadError | undefined {
  const kind = (Object.keys(SECTIONS) as readonly Kind[]).find(one => sections.has(SECTIONS[one]));
  if (kind === undefined) {
    return undefined;
  }
  const text = sections.get(SECTIONS[kind]) ?? '';
  const [user = '', ...rest] = kind === 'refused' ? text.split('\n') : ['', text];
  return faultOf(kind, rest.join('\n'), { node, user });
}

/** What to tell of words of a client, about the runtime behind a socket, or any. */
export function faultOf(
  kind: Kind,
  said: string,
  { node, user, runtime = 'the runtime' }: { readonly node: string; readonly user: string; readonly runtime?: string },
): SideloadError {
  const words = said.trim().slice(-LONGEST);
  const of = (code: ErrorCode, message: string, hint?: string) => new SideloadError(code, message, { node, hint });
  switch (kind) {
    case 'refused':
      return /^(sudo|doas): /m.test(words)
        ? of('SUDO_RIGHT_MISSING', `${user} may not ask ${runtime}: ${words}`)
        : of(
            'RUNTIME_REFUSED',
            `${runtime} does not let ${user} in: ${deniedIn(words)}`,
            user === 'root' ? ROOT_REFUSED : undefined,
          );
    case 'silent':
      return of('RUNTIME_NOT_RUNNING', `${runtime} does not answer${words === '' ? '' : `: ${words}`}`);
    case 'error':
      return of(
        'RUNTIME_ERROR',
        `${runtime} answers with an error: ${words}`,
        NO_DATE.test(words) ? DATE_HINT : undefined,
      );
  }
}

const LONGEST = 1500;

/** What of it is about the refusal: the socket, and why. */
function deniedIn(words: string): string {
  return /dial unix \S+: connect: permission denied/.exec(words)?.[0] ?? words;
}

const ROOT_REFUSED =
  'Not even root may: look for a security module that keeps it from the socket (`ausearch -m avc -ts recent`, `dmesg`).';

/** cri-dockerd, of an image without `created`: to the kubelet it says the same. */
const NO_DATE = /parsing time \\?"\\?" as/;
const DATE_HINT =
  'The image’s config has no `created`, and cri-dockerd describes no such image, to the kubelet neither: build it with a date.';
