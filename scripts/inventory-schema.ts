import { type JsonSchema, toJsonSchema } from '@valibot/to-json-schema';
import { INPUT_NAMES, type InputName, inputSpec } from '../src/inputs.ts';
import { InventoryFile, isSetting, NodeMapping, NodeText, type SettingsFile } from '../src/node/inventory.ts';

/**
 * The JSON schema of an inventory or configuration file, from the schema that reads it and from the table of inputs; editors show the help
 * of each setting.
 */
export function inventorySchema(owner: SettingsFile): string {
  const schema = toJsonSchema(InventoryFile, {
    typeMode: 'output',
    overrideSchema: ({ valibotSchema, jsonSchema }) => {
      switch (valibotSchema.type) {
        // The parser looks at a node to say what is wrong with it; a schema can only try both.
        case 'lazy':
          return { anyOf: [part(NodeText), part(NodeMapping)] };
        case 'record':
          return settings(owner);
        default:
          return jsonSchema;
      }
    },
  });
  // What a lazy schema was converted to before it was replaced.
  const { $schema, $defs: _, ...rest } = schema;
  return `${JSON.stringify({ $schema, title: TITLES[owner], ...rest }, undefined, 2)}\n`;
}

const TITLES = { inventory: 'Inventory of kube-sideload', config: 'Configuration of kube-sideload' };

function part(schema: typeof NodeText | typeof NodeMapping): JsonSchema {
  const { $schema: _, ...rest } = toJsonSchema(schema, { typeMode: 'output' });
  return rest;
}

function settings(owner: SettingsFile): JsonSchema {
  const properties = INPUT_NAMES.filter(name => isSetting(name, owner)).map(name => [name, setting(name)] as const);
  return { type: 'object', properties: Object.fromEntries(properties), additionalProperties: false };
}

function setting(name: InputName): JsonSchema {
  const { type, default: preset, help } = inputSpec(name);
  const description = preset === undefined ? help : `${help} Default: ${preset}.`;
  if (typeof type === 'object') {
    // YAML reads `true` as no text.
    const isBoolean = type.oneOf.includes('true');
    return { enum: [...type.oneOf, ...(isBoolean ? [true, false] : [])], description };
  }
  switch (type) {
    case 'list':
    case 'lines':
      return { anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' } }], description };
    case 'port':
    case 'seconds':
    case 'bytes':
      return { type: ['integer', 'string'], description };
    default:
      return { type: 'string', description };
  }
}
