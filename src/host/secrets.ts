import { harmless } from '../report/text.ts';

/** Where a secret was: `job` is what the CI system has passed to us, `runner` is a file on the machine. */
export type SecretOrigin = 'job' | 'runner';

/** What must not be seen, in anything that we write. */
export interface Secrets {
  /** Each line counts by itself, since tools quote lines; also as JSON, URLs and base64 have it. */
  add(secret: string, origin: SecretOrigin): void;
  /** The text as people may see it: {@link harmless}, and after that with `***` in place of every secret. */
  redact(text: string): string;
}

/**
 * A shorter one counts only where it stands alone: `app` is no secret in `docker.io/library/app:1`, and `***` there would
 * tell it to everybody. GitLab masks none that is shorter, either.
 */
const LEAST_CHARACTERS = 8;

/**
 * @param announce is called with each line of what the CI system has passed to us, and no others: it may tell that system, in
 *   its log, what to mask, which a secret that never came near that log must not be part of
 */
export function secretStore(announce: (line: string) => void = () => {}): Secrets {
  const forms = new Set<string>();
  let sorted: readonly string[] | undefined;
  return {
    add(secret, origin) {
      for (const line of secret.split(/\r?\n/).filter(one => one.trim() !== '')) {
        for (const form of formsOf(line)) {
          forms.add(form);
        }
        if (origin === 'job' && line.length >= LEAST_CHARACTERS) {
          announce(line);
        }
      }
      sorted = undefined;
    },
    redact(text) {
      // The longest first: one secret may be a part of another.
      sorted ??= [...forms].sort((one, other) => other.length - one.length);
      return sorted.reduce(
        (result, form) =>
          form.length < LEAST_CHARACTERS ? result.replaceAll(alone(form), '***') : result.replaceAll(form, '***'),
        harmless(text),
      );
    },
  };
}

/** As it is, as it is shown, and as programs encode what they quote. */
function formsOf(line: string): readonly string[] {
  const quoted = [line, line.trim(), JSON.stringify(line).slice(1, -1)];
  const forms = [...quoted, ...quoted.map(harmless)];
  const encoded = [encodeURIComponent(Buffer.from(line).toString()), Buffer.from(line).toString('base64')];
  return [...forms, ...(line.length < LEAST_CHARACTERS ? [] : encoded)].filter(form => form !== '');
}

/** Neither within a word, nor as a part of a name, a path or an image reference. */
function alone(form: string): RegExp {
  const literal = form.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`(?<![\\w/@-]|\\w[.:])${literal}(?![\\w/@-]|[.:]\\w)`, 'g');
}
