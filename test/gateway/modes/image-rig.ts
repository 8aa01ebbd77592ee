import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { Database } from '../../../src/base/database.ts';
import { DiskRoom } from '../../../src/base/disk-room.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import type { EventFields } from '../../../src/base/event-fields.ts';
import type { EventName } from '../../../src/base/event-table.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import {
  ImageCache,
  type ImageCacheParts,
  type OperationEnd,
} from '../../../src/gateway/modes/image-cache.ts';
import { download } from '../../../src/gateway/northbound/download.ts';
import { ImageFiles } from '../../../src/gateway/store/image-files.ts';
import { Images } from '../../../src/gateway/store/images.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import type { ImageOrder } from '../../../src/mo/image-branch.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { type Answer, lyingServer } from '../../journeys/lying-server.ts';

export const sha = (data: Uint8Array) => createHash('sha256').update(data).digest('hex');

/** Ends each pause between attempts at once. */
export class HastyRecorder extends EventRecorder {
  readonly clock = new HandClock();

  override emit(name: EventName, fields: EventFields): void {
    super.emit(name, fields);
    if (name === 'image.broke-off' || name === 'background.failed')
      setImmediate(() => this.clock.advance(100_000));
  }
}

export interface RigSettings {
  readonly directory?: string;
  readonly database?: Database;
  readonly quota?: number;
  /** Bytes of the disk that stay free. */
  readonly keepFree?: number;
  /** A download server of the test, instead of one with the answers. */
  readonly server?: Awaited<ReturnType<typeof lyingServer>>;
  /** Orders of an earlier start. */
  readonly orders?: Map<string, ImageOrder>;
  readonly more?: Partial<ImageCacheParts>;
}

/** An image cache with a real download server, on a real disk. */
export async function imageRig(answers: readonly Answer[], settings: RigSettings = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'postern-lies-'));
  const server = settings.server ?? (await lyingServer(...answers));
  const events = new HastyRecorder();
  const { clock } = events;
  const { directory = folder, orders = new Map<string, ImageOrder>(), quota = 200_000 } = settings;
  const database = settings.database ?? openDatabase(':memory:', gatewaySchema);
  const files = new ImageFiles(directory);
  const images = new Images(database);
  const ends: (OperationEnd & { readonly name: string })[] = [];
  const begun: string[] = [];
  const cache = new ImageCache({
    images,
    files,
    disk: new DiskRoom(settings.keepFree ?? 0),
    quota,
    count: 8,
    signingKeys: [],
    download,
    order: (name) => orders.get(name)!,
    pathOf: (name) => `/img/${name}`,
    clock,
    entropy: seededEntropy(3),
    events,
    ended: ({ name }, end) => void ends.push({ name, ...end }),
    ...settings.more,
  });
  return {
    cache,
    clock,
    database,
    directory,
    events,
    files,
    images,
    orders,
    requests: server.requests,
    ends,
    begin: (name = 'a', hash?: string, path = '', dropsEarlier = false) => {
      const order = { name, url: server.url + path, hash, signature: undefined, dropsEarlier };
      orders.set(name, order);
      assert.equal(cache.admit(order, false, []), 202);
      begun.push(name);
      cache.begin(order, 'dm.example', undefined);
    },
    /** Resolves with what the latest operation on an image came to, when all of it is done. */
    outcome: async (name = 'a') => {
      const wanted = begun.filter((each) => each === name).length;
      const ended = () => ends.filter((end) => end.name === name);
      while (ended().length < wanted) await turn();
      const good = ends.filter(({ result }) => result === 200).length;
      while (events.count('image.ready') < good) await turn();
      return ended().at(-1);
    },
    stored: (name = 'a') => {
      const image = cache.ready(name);
      return image && Buffer.from(image.read(0, image.size));
    },
    [Symbol.asyncDispose]: async () => {
      await cache[Symbol.asyncDispose]();
      if (!settings.server) await server[Symbol.asyncDispose]();
      files[Symbol.dispose]();
      rmSync(folder, { recursive: true });
    },
  };
}
