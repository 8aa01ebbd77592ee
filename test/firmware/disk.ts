import assert from 'node:assert/strict';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { mebibyte } from '../../firmware-image/recipe/layout.ts';
import { run } from '../../firmware-image/recipe/tools.ts';
import { transaction } from '../../src/base/database.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { Credentials } from '../../src/gateway/store/credentials.ts';
import { Inventory } from '../../src/gateway/store/inventory.ts';
import { gatewaySchema } from '../../src/gateway/store/schema.ts';
import { sealingOf } from '../state-files.ts';

/** Makes a gateway's state file with a thousand attached devices. */
export function thousandDevices(file: string): void {
  const database = openDatabase(file, gatewaySchema);
  const inventory = new Inventory(database, 1000);
  const credentials = new Credentials(database, 1000, sealingOf(file));
  transaction(database, () => {
    for (let number = 0; number < 1000; number++) {
      const deviceId = `urn:dev:ops:000000-${number}`;
      inventory.put({
        deviceId,
        state: 'attached',
        mode: 1,
        origin: 'local',
        address: `coap://10.0.3.${number % 250}:5683`,
        lastSeen: Date.now(),
        manufacturer: 'Maker & Sons',
        model: 'T1000',
        firmware: '1.0.0',
        deviceType: 'sensor',
        protocol: 'OMA-DM',
        isGateway: false,
      });
      credentials.put({
        deviceId,
        clientName: deviceId,
        clientSecret: 'c'.repeat(22),
        clientNonce: Buffer.alloc(16, 1),
        serverSecret: 's'.repeat(22),
        serverNonce: Buffer.alloc(16, 2),
        origin: 'local',
        attached: true,
      });
    }
  });
  database.close();
}

/** Offset of the data partition on the disk in mebibytes. */
export function dataStart(disk: string): number {
  const table = run('sfdisk', ['-d', disk]);
  const start = Number(/start=\s*(\d+),[^\n]*name="data"/.exec(table)?.[1]);
  assert.ok(start > 0, table);
  return (start * 512) / mebibyte;
}

/** Zeroes the head of the data partition of a board that is switched off. */
export function zeroData(disk: string, bytes: number): void {
  zero(disk, dataStart(disk) * mebibyte, bytes);
}

/** Copies the data partition of a board that is switched off to a file. `at` is its offset on the disk in mebibytes. */
function dataPartition(disk: string): { file: string; at: number } {
  const at = dataStart(disk);
  const file = `${disk}.data`;
  run('dd', [`if=${disk}`, `of=${file}`, 'bs=1M', `skip=${at}`, 'conv=sparse']);
  // e2fsck replays the journal first. Otherwise recent writes would not be seen, and the journal could undo new ones.
  run('sh', ['-c', `e2fsck -fy '${file}' || [ $? -le 1 ]`]);
  return { file, at };
}

/** Writes a file to the data partition of a board that is switched off, owned by the gateway's user. */
export function putIntoData(disk: string, file: string, path: string): void {
  const data = dataPartition(disk);
  for (const rest of ['-wal', '-shm', '']) run('debugfs', ['-w', '-R', `rm ${path}${rest}`, data.file]);
  run('debugfs', ['-w', '-R', `write ${file} ${path}`, data.file]);
  for (const owner of ['uid', 'gid']) run('debugfs', ['-w', '-R', `sif ${path} ${owner} 100`, data.file]);
  run('dd', [`if=${data.file}`, `of=${disk}`, 'bs=1M', `seek=${data.at}`, 'conv=notrunc']);
}

/** Reads a file of the data partition of a board that is switched off, as text. */
export const readFromData = (disk: string, path: string): string =>
  run('debugfs', ['-R', `cat ${path}`, dataPartition(disk).file]);

/** Inverts one octet of a file. */
export function flip(file: string, at: number): void {
  writePart(file, at, Buffer.of(readPart(file, at, 1)[0]! ^ 0xff));
}

/** Zeroes a part of a file. */
export const zero = (file: string, at: number, bytes: number): void =>
  writePart(file, at, Buffer.alloc(bytes));

/** Reads a part of a file. */
export function readPart(file: string, at: number, bytes: number): Buffer {
  const handle = openSync(file, 'r');
  const part = Buffer.alloc(bytes);
  readSync(handle, part, 0, bytes, at);
  closeSync(handle);
  return part;
}

/** Writes a part of a file. */
export function writePart(file: string, at: number, part: Buffer): void {
  const handle = openSync(file, 'r+');
  writeSync(handle, part, 0, part.length, at);
  closeSync(handle);
}

/** Copies a part of a disk to another place on it. All numbers are mebibytes. */
export function copyWithin(file: string, from: number, to: number, count: number): void {
  writePart(file, to * mebibyte, readPart(file, from * mebibyte, count * mebibyte));
}
