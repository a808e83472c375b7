import { asObject } from '../image/json.ts';
import { readYaml } from '../yaml.ts';

/** How the fields are named that hold a secret (kubeconfig v1: AuthInfo; `config` of its auth providers; variables of plugins). */
const SECRET = /token|password|passphrase|secret|key-data|credential/i;
/** Names of files, which hold it in place of the field. */
const FILE = /file$|path$/i;

/**
 * The secrets in the text of a kubeconfig, however YAML writes them, and not its other texts: nobody wants `***: v1` all over
 * the log. Of a text that is no YAML, every line.
 */
export function credentialsOf(kubeconfig: string): readonly string[] {
  const documents = readYaml(kubeconfig);
  if (documents.some(({ faults }) => faults.length > 0)) {
    return [kubeconfig];
  }
  const secrets = documents.flatMap(({ value }) => secretsIn(value, ''));
  return [...new Set([...secrets, ...secrets.flatMap(linesOf), ...secrets.flatMap(decoded)])];
}

function secretsIn(value: unknown, field: string): readonly string[] {
  if (typeof value === 'string') {
    return SECRET.test(field) && !FILE.test(field) ? [value] : inAddress(value);
  }
  if (Array.isArray(value)) {
    return value.flatMap(item => secretsIn(item, field));
  }
  const { name, ...rest } = asObject(value);
  return Object.entries(rest).flatMap(([key, item]) =>
    // A variable of a plugin, as `name` and `value`.
    secretsIn(item, key === 'value' && typeof name === 'string' ? name : key),
  );
}

/** What may have been lines of the file, where YAML has folded them into one. */
function linesOf(secret: string): readonly string[] {
  return secret.split(/\s+/).filter(word => word.length >= 8);
}

/** The password of a proxy is a part of its address. */
function inAddress(value: string): readonly string[] {
  const password = URL.canParse(value) ? new URL(value).password : '';
  return password === '' ? [] : [password, decodeURIComponent(password)];
}

/** A key is there as base64; whoever complains of it quotes its lines. */
function decoded(secret: string): readonly string[] {
  const text = /^LS0tLS/.test(secret) ? Buffer.from(secret, 'base64').toString() : '';
  return text.startsWith('-----BEGIN') ? [text] : [];
}
