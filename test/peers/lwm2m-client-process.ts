import { createRequire } from 'node:module';
import type { Telling, Told } from './lwm2m-client.ts';

interface CoapNode {
  register(ip: string, port: number, done: (error: unknown, answer?: { status: string }) => void): void;
  deregister(done: (error: unknown, answer?: { status: string }) => void): void;
}
interface SmartObject {
  init(object: string, instance: number, values: object): void;
  dumpSync(object: string, instance: number): unknown;
}

const require = createRequire(import.meta.url);
const Node = require('coap-node') as new (name: string, objects: SmartObject, settings: object) => CoapNode;
const Objects = require('smartobject') as new () => SmartObject;

const [, , name = '', port = ''] = process.argv;
const tell = (telling: Telling) => process.send?.(telling);

const objects = new Objects();
objects.init('temperature', 0, { sensorValue: 21, units: 'C' });
objects.init('lightCtrl', 0, { onOff: false, dimmer: 3 });
const client = new Node(name, objects, { lifetime: 600, version: '1.0' });
client.register('127.0.0.1', Number(port), (error, answer) =>
  tell({ kind: 'registered', status: answer?.status ?? String(error) }),
);
process.on('message', ({ kind }: Told) => {
  if (kind === 'dump') tell({ kind, light: objects.dumpSync('lightCtrl', 0) });
  else client.deregister((error, answer) => tell({ kind: 'left', status: answer?.status ?? String(error) }));
});
