import { toJsonSchema } from '@valibot/to-json-schema';
import { DocumentSchema } from '../src/report/report.ts';

/** The JSON schema of `report-json`, from the schema that types the record. */
export function reportSchema(): string {
  const { $schema, ...rest } = toJsonSchema(DocumentSchema, { typeMode: 'output', ignoreActions: ['readonly'] });
  return `${JSON.stringify({ $schema, title: 'Report of kube-sideload', ...rest }, undefined, 2)}\n`;
}
