import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { DiskRoom } from '../../../src/base/disk-room.ts';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { asPosternError } from '../../../src/base/errors.ts';
import { type DownloadRequest, download } from '../../../src/gateway/northbound/download.ts';
import type { FileVersion } from '../../../src/gateway/northbound/file-download.ts';
import { BundleDownload, type BundleDownloadParts } from '../../../src/gateway/update/download-bundle.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

/** Milliseconds that pass when an attempt has failed: more than the longest pause. */
export const between = 100_000;

/** Downloads whose clock moves on when an attempt has failed, so that the next one follows at once. */
export function hastyDownload(
  t: TestContext,
  clock: HandClock,
  failed: () => void = () => {},
): typeof download {
  let isOver = false;
  let requests = 0;
  t.after(() => (isOver = true));
  // Until nothing but the pause before the next attempt is waited for.
  const pass = async () => {
    const failure = requests;
    while (clock.timers === 0 && !isOver && requests === failure) await turn();
    if (requests === failure) clock.advance(between);
  };
  const told = () => {
    failed();
    void pass();
  };
  return async (wanted: DownloadRequest) => {
    requests++;
    try {
      const found = await download(wanted);
      return { ...found, body: watched(found.body, told) };
    } catch (thrown) {
      // No other attempt follows.
      if (asPosternError(thrown).code !== 'notFound') told();
      throw thrown;
    }
  };
}

async function* watched(body: AsyncIterable<Uint8Array>, failed: () => void): AsyncGenerator<Uint8Array> {
  try {
    yield* body;
  } catch (thrown) {
    failed();
    throw thrown;
  }
}

/** A folder with what the running version consists of, and downloads of bundles into it. */
export function bundleRig(t: TestContext, more: Partial<BundleDownloadParts> & { folder?: string } = {}) {
  const folder = more.folder ?? mkdtempSync(join(tmpdir(), 'postern-bundle-'));
  if (!more.folder) t.after(() => rmSync(folder, { recursive: true }));
  const events = new EventRecorder();
  const clock = new HandClock();
  const file = join(folder, 'bundle.raucb');
  const parts: BundleDownloadParts = {
    file,
    disk: new DiskRoom(0),
    download: hastyDownload(t, clock),
    ca: undefined,
    imageFile: () => undefined,
    sources: [join(folder, 'root'), join(folder, 'boot')],
    retryFor: 3_600_000,
    clock,
    entropy: seededEntropy(1),
    events,
    ...more,
  };
  let version: FileVersion = {};
  const bundle = new BundleDownload(parts);
  /** Downloads as the updater does. */
  const fetch = async (url: string, signal = new AbortController().signal) =>
    await bundle.fetch(url, version, (kept) => (version = kept), signal);
  return { folder, file, events, clock, bundle, fetch };
}
