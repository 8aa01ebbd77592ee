import type { NodeOperation, Operation, OperationOutcome } from '../../src/dm/server-session.ts';
import type { Dice } from '../peers/stock/dice.ts';
import type { Lwm2mClient } from '../peers/stock/lwm2m-client.ts';
import type { Lwm2mHabits } from '../peers/stock/lwm2m-habits.ts';
import { creatable } from '../peers/stock/lwm2m-objects.ts';
import { type Held, shown } from '../peers/stock/lwm2m-values.ts';

/** Values of an object that no registry knows. SenML alone says their types, so others have none. */
export function valuesBy(dice: Dice, { format }: Lwm2mHabits): Map<string, Held> {
  const text: Held = { type: 'string', value: dice.text(dice.pick([0, 5, 300])) };
  if (!format.startsWith('senml')) return new Map();
  return new Map<string, Held>([
    [
      '33333/0/0',
      { type: 'integer', value: dice.pick([0n, -7n, 300n, 70_000n, 2n ** 53n + 1n, -(2n ** 62n)]) },
    ],
    ['33333/0/1', { type: 'float', value: dice.pick([0.5, -1e300, 12.25]) }],
    ['33333/0/2', text],
    ['33333/0/3', { type: 'boolean', value: dice.chance(0.5) }],
    ['33333/0/4', { type: 'opaque', value: dice.octets(dice.pick([1, 40, 900])) }],
    ['33333/2/300', { type: 'integer', value: 5n }],
  ]);
}

/** A Replace of a resource by a value of its type. */
function replacement(dice: Dice, path: string, { type }: Held): NodeOperation {
  const uri = `./${path}`;
  // What the registry has as an integer from 0 up takes no others: the gateway refuses them itself.
  const negatives = path.startsWith('33333/') ? [-1n, -32_769n, -(2n ** 63n)] : [];
  const whole = dice.pick([0n, 1n, 255n, 2n ** 31n, 2n ** 53n + 3n, ...negatives]);
  switch (type) {
    case 'integer':
    case 'time':
      return { name: 'Replace', uri, format: 'int', data: String(whole) };
    case 'float':
      return { name: 'Replace', uri, format: 'float', data: dice.pick(['0.25', '-17', '1e+100']) };
    case 'boolean':
      return { name: 'Replace', uri, format: 'bool', data: dice.pick(['true', 'false']) };
    case 'opaque':
      return { name: 'Replace', uri, format: 'bin', data: dice.octets(dice.pick([1, 30, 1500])) };
    default:
      return { name: 'Replace', uri, format: 'chr', data: dice.text(dice.pick([1, 8, 1400])) };
  }
}

/** What is wanted of a client in one order. Each instance that comes or goes is in one operation of it. */
export function operationsBy(dice: Dice, client: Lwm2mClient): Operation[] {
  const changed = new Set<string>();
  const { object } = creatable;
  const ids = dice.shuffled(['1', '2', '3', '4']);
  let chosen = 0;
  const leaf = (instance: string): NodeOperation =>
    dice.chance(0.5)
      ? { name: 'Add', uri: `./${object}/${instance}/5750`, data: dice.text(dice.pick([1, 40, 1300])) }
      : { name: 'Add', uri: `./${object}/${instance}/5601`, format: 'float', data: '0.25' };
  const instances = (): Operation => {
    const id = ids.pop();
    if (id === undefined) return { name: 'Get', uri: `./${object}` };
    const instance = dice.chance(0.3) ? `x${chosen++}` : id;
    const uri = `./${object}/${instance}`;
    const add: NodeOperation = { name: 'Add', uri, format: 'node' };
    if (dice.chance(0.3)) return { name: 'Delete', uri: `./${object}/${id}` };
    if (dice.chance(0.4)) return add;
    const operations = dice.chance(0.6) ? [add, leaf(instance)] : [leaf(instance)];
    return { name: 'Atomic', operations };
  };
  const candidates = () =>
    [...client.values].filter(
      ([path]) => path.split('/').length === 3 && !path.startsWith(`${object}/`) && !changed.has(path),
    );
  const together = (): Operation[] => {
    const some = dice.shuffled(candidates()).slice(0, dice.between(1, 3));
    for (const [path] of some) changed.add(path);
    const operations = some.map(([path, held]) => replacement(dice, path, held));
    return operations.length === 0 ? [] : [{ name: dice.pick(['Atomic', 'Atomic', 'Sequence']), operations }];
  };
  return Array.from({ length: dice.between(1, 6) }, (): Operation[] => {
    if (dice.chance(0.25)) return [instances()];
    if (dice.chance(0.15)) return together();
    const path = dice.pick([
      '3/0/99',
      ...[...client.values.keys()].filter((key) => !key.startsWith(`${object}/`)),
    ]);
    const held = client.values.get(path);
    if (dice.chance(0.1))
      return [{ name: 'Get', uri: dice.pick(['./3/0?list=StructData', './3/0', './3/0/6']) }];
    if (dice.chance(0.1)) return [{ name: 'Exec', uri: './3/0/12' }];
    if (dice.chance(0.5) || path.split('/').length > 3 || changed.has(path) || !held)
      return [{ name: 'Get', uri: `./${path}` }];
    changed.add(path);
    return [replacement(dice, path, held)];
  }).flat();
}

const statusOfCode: Readonly<Record<string, number>> = {
  '4.00': 400,
  '4.04': 404,
  '4.05': 405,
  '4.08': 400,
  '4.15': 415,
};

/** What a client had before an order. */
export interface Before {
  readonly values: ReadonlyMap<string, Held>;
  readonly created: ReadonlySet<string>;
}

export const beforeOf = ({ objects }: Lwm2mClient): Before => ({
  values: new Map(objects.values),
  created: new Set(objects.created),
});

/**
 * What the gateway says of an operation, against what the client has.
 * @param isUnsure datagrams were lost, or the client has begun anew: of a command without an answer nobody knows what became
 */
export function compare(
  outcome: OperationOutcome,
  client: Lwm2mClient,
  before: Before,
  isUnsure: boolean,
): string[] {
  const { operation } = outcome;
  if ('operations' in operation) {
    if (operation.name === 'Sequence')
      return (outcome.parts ?? []).flatMap((each) => compare(each, client, before, isUnsure));
    return compareAtomic(outcome, client, before, isUnsure);
  }
  if (!('uri' in operation)) return [];
  // Nobody knows what a client has done that lost its answers.
  if (outcome.status === 408 && isUnsure) return [];
  if (operation.name === 'Add' || operation.name === 'Delete')
    return compareInstance(outcome, client, before);
  if (operation.name === 'Replace') return compareReplace(outcome, operation, client, before);
  return compareOther(outcome, operation, client, before);
}

/** Whether the client has the value that an operation writes. */
function hasValue(client: Lwm2mClient, { uri, data = '' }: NodeOperation): boolean {
  const now = client.values.get(uri.slice(2));
  const wanted = Buffer.isBuffer(data) ? data.toString('base64') : String(data);
  if (!now) return false;
  return now.type === 'float' ? Number(wanted) === Number(shown(now)) : wanted === shown(now);
}

function isAsBefore(client: Lwm2mClient, { values }: Before, { uri }: NodeOperation): boolean {
  const path = uri.slice(2);
  const [was, now] = [values.get(path), client.values.get(path)];
  return was && now ? shown(was) === shown(now) : was === now;
}

function compareAtomic(
  { operation, status, parts = [], results }: OperationOutcome,
  client: Lwm2mClient,
  before: Before,
  isUnsure: boolean,
): string[] {
  if (!('operations' in operation)) return [];
  const inner = operation.operations as readonly NodeOperation[];
  const said = `Atomic of ${inner.map(({ name, uri }) => `${name} ${uri}`)}: ${status}, ${parts.map((each) => each.status)}`;
  if (status === 516) return isUnsure ? [] : [said];
  if (status !== 200 && status !== 507) return [said];
  if (inner[0]?.name === 'Add') {
    const [made] = [...results, ...parts.flatMap((each) => each.results)];
    const [, instance = ''] = inner[0].uri.slice(2).split('/');
    const path = made?.uri.slice(2) ?? `${creatable.object}/${instance}`;
    const isNamed = made !== undefined || !instance.startsWith('x');
    const at = (each: NodeOperation): NodeOperation => ({
      ...each,
      uri: `./${[path, ...each.uri.slice(2).split('/').slice(2)].join('/')}`,
    });
    if (!isNamed) return countInstances(said, status, client, before);
    const isThere = client.objects.created.has(path);
    if (status === 507)
      return isThere === before.created.has(path) ? [] : [`${said}, and the client has changed`];
    const leaves = inner.filter(({ format }) => format !== 'node').map(at);
    const isWhole = isThere && leaves.every((each) => hasValue(client, each));
    return isWhole && !before.created.has(path) ? [] : [`${said}, and the client has not created it`];
  }
  const isRight = inner.every((each) =>
    status === 200 ? hasValue(client, each) : isAsBefore(client, before, each),
  );
  return isRight ? [] : [`${said}, and the client has other values`];
}

/** Of instances whose names the client does not tell, only their number is known. */
function countInstances(
  said: string,
  status: number,
  { objects }: Lwm2mClient,
  { created }: Before,
): string[] {
  const grows = [...objects.created].filter((each) => !created.has(each)).length;
  return status === 200 && grows === 0 ? [`${said}, and the client has created nothing`] : [];
}

function compareInstance(
  { operation, status, results }: OperationOutcome,
  client: Lwm2mClient,
  before: Before,
): string[] {
  const { name, uri } = operation as NodeOperation;
  const said = `${name} ${uri}: ${status}`;
  const path = results[0]?.uri.slice(2) ?? uri.slice(2);
  if (path.includes('/x')) return countInstances(said, status, client, before);
  const [was, is] = [before.created.has(path), client.objects.created.has(path)];
  if (name === 'Delete') {
    if (status === 200) return was && !is ? [] : [`${said}, and the client has it`];
    return status === 404 && !was && !is ? [] : [said];
  }
  if (status === 200) return is && !was ? [] : [`${said}, and the client has not created it`];
  if (status === 418) return was && is ? [] : [`${said}, and the client did not have it`];
  const [done] = client.log.filter(({ method, code }) => method === '0.02' && code.startsWith('4.'));
  return was === is && done ? [] : [`${said}, and the client says ${done?.code}`];
}

function compareReplace(
  { status }: OperationOutcome,
  operation: NodeOperation,
  client: Lwm2mClient,
  before: Before,
): string[] {
  const path = operation.uri.slice(2);
  const said = `Replace ${operation.uri}: ${status}`;
  const place = client.log.findIndex(
    ({ method, path: at, code }) => method !== '0.02' && at === path && code !== '4.15',
  );
  const [done] = place < 0 ? [] : client.log.splice(place, 1);
  if (status === 200) return hasValue(client, operation) ? [] : [`${said}, and the client has another value`];
  if (!isAsBefore(client, before, operation)) return [`${said}, and the client has changed it`];
  return statusOfCode[done?.code ?? ''] === status ? [] : [`${said}, and the client says ${done?.code}`];
}

function compareOther(
  { status, results }: OperationOutcome,
  { name: kind, uri }: NodeOperation,
  client: Lwm2mClient,
  { values: before, created }: Before,
): string[] {
  const [path = '', query] = uri.slice(2).split('?');
  const said = `${kind} ${uri}: ${status}`;
  if (kind === 'Exec') return status === 200 ? [] : [said];
  const below = [...client.values].filter(([key]) => key.startsWith(`${path}/`));
  const held = client.values.get(path) ?? before.get(path);
  if (!held && below.length === 0 && created.size === 0) return status === 404 ? [] : [said];
  if (!held && below.length === 0 && path !== `${creatable.object}`) return status === 404 ? [] : [said];
  if (status !== 200) return [said];
  if (query !== undefined) {
    const leaves = new Map(results.map(({ uri: at, data }) => [at.slice(2), coded(data)]));
    return below.flatMap(([key, each]) =>
      leaves.get(key) === shown(each) || leaves.get(key) === shown(before.get(key) ?? each)
        ? []
        : [`${said}: ${key} is ${leaves.get(key)}, not ${shown(each)}`],
    );
  }
  const [result] = results;
  if (!held) return result?.format === 'node' ? [] : [said];
  const was = before.get(path) ?? held;
  const data = coded(result?.data ?? '');
  const isSame = [held, was].some((each) =>
    each.type === 'float' ? Number(shown(each)) === Number(data) : shown(each) === data,
  );
  return isSame ? [] : [`${said}: found ${data.slice(0, 80)}, not ${shown(held).slice(0, 80)}`];
}

const coded = (data: string | Uint8Array): string =>
  typeof data === 'string' ? data : Buffer.from(data).toString('base64');
