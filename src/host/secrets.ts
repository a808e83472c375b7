/** What must not be seen: for logs that nobody masks, and for files that we write ourselves. */
export interface Secrets {
  /** Each line counts by itself, since tools quote lines. */
  add(secret: string): void;
  /** The text with `***` in place of every secret. */
  redact(text: string): string;
}

export function secretStore(onLine: (line: string) => void = () => {}): Secrets {
  const lines = new Set<string>();
  return {
    add(secret) {
      for (const line of secret.split(/\r?\n/)) {
        if (line.trim() !== '') {
          lines.add(line);
          onLine(line);
        }
      }
    },
    redact(text) {
      // The longest first: one secret may be a part of another.
      const sorted = [...lines].sort((one, other) => other.length - one.length);
      return sorted.reduce((result, line) => result.replaceAll(line, '***'), text);
    },
  };
}
