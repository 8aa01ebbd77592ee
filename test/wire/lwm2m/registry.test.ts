import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import {
  describeResource,
  isCommon,
  objectName,
  objectsNamed,
  resourceNamed,
} from '../../../src/wire/lwm2m/objects.ts';
import {
  type RegisteredResource,
  registeredNames,
  registeredObject,
  sharedResource,
} from '../../../src/wire/lwm2m/registry.ts';

const folder = dirname(createRequire(import.meta.url).resolve('@nordicsemiconductor/lwm2m-types'));

/** What the TypeScript of the package says of an object: names, instances and demands are in comments. */
function typesOf(file: string) {
  const source = readFileSync(join(folder, 'types', file), 'utf8');
  const isTrue = (comment: string, what: string) => comment.includes(`${what}: true`);
  const named = [
    ...source.matchAll(/\/\*\*\n \* ((?:(?!\*\/)[\s\S])*?)\n \*\/\s*(?:export )?type \w+_(\d+) = ([^\n]*)/g),
  ];
  const [object, ...resources] = named.map(([, comment = '', id, type = '']) => ({
    // A long name goes on in the next lines of the comment.
    name: comment
      .split(/\n \*\n/)[0]!
      .replace(/\s*\n \*\s*/g, ' ')
      .replace(/\s+/g, ' ')
      .trim(),
    id: Number(id),
    type,
    multiple: isTrue(comment, 'MultipleInstances'),
    mandatory: isTrue(comment, 'Mandatory'),
  }));
  return { ...object!, resources };
}

const kinds: Readonly<Record<string, string>> = {
  integer: 'number',
  unsigned: 'number',
  float: 'number',
  time: 'number',
  boolean: 'boolean',
  text: 'string',
  string: 'string',
  objlnk: 'string',
};

describe('the registry of LwM2M objects', () => {
  test('is what the package has: each object and each resource', () => {
    const files = readdirSync(join(folder, 'types')).filter((name) => /^\d+\.ts$/.test(name));
    assert.equal(files.length, 302);
    assert.equal(registeredNames().size, files.length);
    let count = 0;
    for (const file of files) {
      const { id, name, multiple, resources } = typesOf(file);
      const found = registeredObject(id);
      assert.deepEqual([found?.name, found?.multiple], [name, multiple], file);
      assert.equal(registeredNames().get(id), name);
      assert.equal(found?.resources.size, resources.length, file);
      for (const { id: resource, name, type, multiple, mandatory } of resources) {
        const described: RegisteredResource | undefined = found?.resources.get(resource);
        const kind: string | undefined = kinds[described?.type ?? ''];
        assert.deepEqual(
          [described?.name, described?.multiple, described?.mandatory, multiple ? `Array<${kind}>` : kind],
          [name, multiple, mandatory, type],
          `${file} ${resource}`,
        );
        count++;
      }
    }
    assert.equal(count, 2869);
  });

  test('has these resources, by the registry of OMA', () => {
    const sample = (object: number, resource: number) => {
      const { name, type, multiple, mandatory } = registeredObject(object)?.resources.get(resource) ?? {};
      return [name, type, multiple, mandatory];
    };
    assert.deepEqual(sample(3303, 5700), ['Sensor Value', 'float', false, true]);
    assert.deepEqual(sample(3303, 5518), ['Timestamp', 'time', false, false]);
    assert.deepEqual(sample(4, 4), ['IP Addresses', 'text', true, true]);
    assert.deepEqual(sample(3, 22), ['ExtDevInfo', 'objlnk', true, false]);
    assert.deepEqual(sample(3, 9), ['Battery Level', 'unsigned', false, false]);
    assert.deepEqual(sample(3311, 5850), ['On/Off', 'boolean', false, true]);
    // An integer of 0 or 1 is no boolean.
    assert.deepEqual(sample(1, 26), ['Default Notification Mode', 'unsigned', false, false]);
    assert.deepEqual(sharedResource(5700)?.type, 'float');
    assert.deepEqual(
      [registeredObject(26_241), registeredObject(Number.NaN), sharedResource(0)],
      [undefined, undefined, undefined],
    );
  });

  test('is completed by what the package leaves out', () => {
    assert.deepEqual(
      [objectName(0), objectName(21), objectName(23)],
      ['LwM2M Security', 'LwM2M OSCORE', 'LwM2M COSE'],
    );
    for (const [path, name, type] of [
      [[0, 0, 5], 'Secret Key', 'opaque'],
      [[0, 0, 16], 'DTLS/TLS Ciphersuite', 'unsigned'],
      [[21, 0, 5], 'OSCORE Master Salt', 'opaque'],
      [[23, 0, 2], 'Key', 'string'],
      [[3, 0, 4], 'Reboot', 'none'],
      [[5, 0, 0], 'Package', 'opaque'],
      [[3, 0, 0], 'Manufacturer', 'string'],
      [[3303, 0, 5605], 'Reset Min and Max Measured Values', 'none'],
      [[26_241, 0, 5700], 'Sensor Value', 'float'],
    ] as const) {
      const found = describeResource(path);
      assert.deepEqual([found?.name, found?.type], [name, type]);
    }
    assert.equal(describeResource([26_241, 0, 3]), undefined);
    assert.deepEqual(
      [isCommon([3, 0, 0]), isCommon([26_241, 0, 5700]), isCommon([26_241, 0, 3])],
      [true, true, false],
    );
  });

  test('finds objects and resources by name, in letters and digits of either case', () => {
    for (const name of ['Temperature', 'temperature', 'TEMPERATURE'])
      assert.deepEqual(objectsNamed(name), [3303]);
    for (const name of ['LwM2M Server', 'Server']) assert.deepEqual(objectsNamed(name), [1]);
    assert.deepEqual(objectsNamed('Security'), [0]);
    assert.deepEqual(objectsNamed('Location'), [6, 3336]);
    for (const name of ['', '-', 'Nothing', 'constructor']) assert.deepEqual(objectsNamed(name), []);
    for (const name of ['Sensor Value', 'SensorValue', 'sensor-value'])
      assert.equal(resourceNamed(3303, name), 5700);
    assert.equal(resourceNamed(3, 'Reboot'), 4);
    assert.equal(resourceNamed(0, 'Secret Key'), 5);
    // Two resources of one name.
    assert.equal(resourceNamed(3430, 'Satellite identifiers'), undefined);
    for (const name of ['', 'Nothing', '__proto__']) assert.equal(resourceNamed(3303, name), undefined);
  });
});
