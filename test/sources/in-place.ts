/** Reads the layers of an image in place, of which the first argument is the inspection, and prints how many bytes they are. */
import { parseInspection } from '../../src/image/sources/inspection.ts';
import { readInPlace } from '../../src/image/sources/overlay-store.ts';

const inspection = parseInspection(process.argv[2] ?? '');
const entries = inspection && (await readInPlace('docker engine', 'app:1', inspection, () => {}));
let readBytes = 0;
for (const file of entries?.files.values() ?? []) {
  for await (const chunk of file.open()) readBytes += chunk.length;
}
console.log(entries === undefined ? 'asks the engine' : readBytes);
