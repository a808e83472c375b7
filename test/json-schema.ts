/**
 * What is wrong with a value by a JSON schema (draft 7), as far as our published schemas use it: an unknown keyword is an
 * error of the test, never overlooked. With `isClosed` a key that the schema does not name is a fault too.
 */
export function faultsOf(schema: unknown, value: unknown, isClosed = false, path = '$'): readonly string[] {
  if (!isObject(schema)) throw new Error(`no schema at ${path}`);
  const faults: string[] = [];
  const fault = (what: string) => faults.push(`${path}: ${what}`);
  for (const [keyword, given] of Object.entries(schema)) {
    switch (keyword) {
      case '$schema':
      case 'title':
      case 'description':
      case 'default':
        break;
      case 'type':
        if (![given].flat().includes(typeOf(value, given))) fault(`${JSON.stringify(value)} is no ${given}`);
        break;
      case 'const':
        if (value !== given) fault(`${JSON.stringify(value)} is not ${JSON.stringify(given)}`);
        break;
      case 'enum':
        if (!(given as unknown[]).includes(value)) fault(`${JSON.stringify(value)} is none of ${given}`);
        break;
      case 'pattern':
        if (typeof value === 'string' && !new RegExp(String(given)).test(value)) fault(`${value} does not match`);
        break;
      case 'format':
        if (given !== 'date-time') throw new Error(`format ${given}`);
        if (typeof value === 'string' && Number.isNaN(Date.parse(value))) fault(`${value} is no time`);
        break;
      case 'minimum':
        if (typeof value === 'number' && value < Number(given)) fault(`${value} is too little`);
        break;
      case 'required':
        for (const key of given as string[]) if (!isObject(value) || !(key in value)) fault(`lacks ${key}`);
        break;
      case 'propertyNames':
        for (const key of Object.keys(isObject(value) ? value : {}))
          faults.push(...faultsOf(given, key, isClosed, path));
        break;
      case 'items':
        if (Array.isArray(value)) {
          value.forEach((item, index) => {
            faults.push(...faultsOf(given, item, isClosed, `${path}[${index}]`));
          });
        }
        break;
      case 'properties':
        for (const [key, inner] of Object.entries(isObject(value) ? value : {})) {
          const known = (given as Record<string, unknown>)[key];
          if (known !== undefined) faults.push(...faultsOf(known, inner, isClosed, `${path}.${key}`));
          else if (isClosed && schema.additionalProperties === undefined) fault(`${key} is not in the schema`);
        }
        break;
      case 'additionalProperties':
        for (const [key, inner] of Object.entries(isObject(value) ? value : {})) {
          if (isObject(schema.properties) && key in schema.properties) continue;
          if (given === false) fault(`${key} is not allowed`);
          else faults.push(...faultsOf(given, inner, isClosed, `${path}.${key}`));
        }
        break;
      default:
        throw new Error(`the keyword ${keyword} of ${path} is not known to this test`);
    }
  }
  return faults;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function typeOf(value: unknown, wanted: unknown): string {
  if (Array.isArray(value)) return 'array';
  if (value === null) return 'null';
  return typeof value === 'number' && Number.isInteger(value) && wanted !== 'number' ? 'integer' : typeof value;
}
