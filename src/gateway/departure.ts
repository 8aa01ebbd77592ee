import { existsSync } from 'node:fs';
import { type Clock, pause } from '../base/clock.ts';
import { withoutTraces } from '../base/database.ts';
import type { Entropy } from '../base/entropy.ts';
import { asPosternError } from '../base/errors.ts';
import type { EventFields } from '../base/event-fields.ts';
import type { Events } from '../base/events.ts';
import { backoff } from '../base/retry.ts';
import { unlessAborted } from '../base/unless-aborted.ts';
import { composeGateway } from './composition.ts';
import type { GatewayConfig } from './config.ts';
import { boardIdentity, identityFiles, identityFolder, identityKey } from './enrolled-config.ts';
import { Gateway } from './gateway.ts';
import { DepartureMarks } from './northbound/departure-marks.ts';
import { storedTransfer } from './northbound/transfer-order.ts';
import { wipeState } from './wipe.ts';

interface Machine {
  readonly clock: Clock;
  readonly entropy: Entropy;
  readonly events: Events;
}

/** Milliseconds between attempts at a step that the disk does not take. */
const retry = { first: 1000, cap: 300_000, jitter: 0.5 } as const;
/** Milliseconds of the longest timer of Node: 24 days. A board that belongs to nobody says so again then. */
const untilForever = 2 ** 31 - 1;
/** Milliseconds for which a gateway that has a next owner tells the one before. It serves nobody meanwhile. */
const farewell = 60_000;

/**
 * Goes on with the departure of a gateway, if one has begun, to its end. Each step may be done again: a power cut at any time
 * leads back to the step that it interrupted. Returns true when the configuration is to be read again.
 * @throws the reason of the signal when it is aborted; a board that belongs to nobody waits for that
 */
export async function departIfNeeded(
  config: GatewayConfig,
  machine: Machine,
  stop: AbortSignal,
): Promise<boolean> {
  const marks = new DepartureMarks(identityFolder(config), identityFiles(config));
  if (!config.enrolment || marks.state === undefined) return false;
  const { events, clock, entropy } = machine;
  const gateway = config.gateway.id;
  const delays = backoff(retry, entropy);
  for (;;)
    try {
      if (await step(config, marks, machine, stop)) return true;
    } catch (thrown) {
      stop.throwIfAborted();
      events.emit('departure.stalled', { gateway, reason: asPosternError(thrown).message });
      await pause(clock, delays.next().value, stop);
    }
}

/** Does the next step. Returns true after the last one. */
async function step(
  config: GatewayConfig,
  marks: DepartureMarks,
  machine: Machine,
  stop: AbortSignal,
): Promise<boolean> {
  const { events, clock } = machine;
  const gateway = config.gateway.id;
  const { state, isTransfer } = marks;
  if (state === 'leaving') {
    if (!storedTransfer(marks.next, marks.files)?.keep) wipeState(config);
    await tell(config, marks, machine, stop);
    marks.tell();
  } else if (state === 'left') {
    if (marks.beginAnew(config.enrolment?.code)) return true;
    events.emit('departure.left', { gateway });
    // A timer keeps the process, also where the admin socket cannot be made.
    await pause(clock, untilForever, stop);
  } else if (!isTransfer) {
    marks.end(config.enrolment?.code);
  } else if (existsSync(marks.next)) {
    marks.takeNext();
    return true;
  } else {
    await arrive(config, machine);
    marks.arrive();
    events.emit('departure.transferred', { gateway, server: config['dm-server'].id });
    return true;
  }
  return false;
}

/** Tells the owner, as a gateway without devices and without a state file. Resolves when the owner knows. */
async function tell(
  config: GatewayConfig,
  marks: DepartureMarks,
  machine: Machine,
  stop: AbortSignal,
): Promise<void> {
  const account = marks.account();
  if (!account) return;
  const identity = boardIdentity(config);
  const { promise, resolve } = Promise.withResolvers<void>();
  const events: Events = {
    emit: (name, fields: EventFields) => {
      machine.events.emit(name, fields as never);
      if (name === 'alert.delivered' && fields.alert === 'gateway-fault') resolve();
    },
  };
  const { update: _, ...rest } = config;
  const quiet: GatewayConfig = {
    ...rest,
    gateway: { ...config.gateway, state: ':memory:' },
    images: { ...config.images, directory: undefined },
    enrolment: {
      ...config.enrolment!,
      folder: identityFolder(config),
      'identity-key': identityKey(config),
    },
    mqtt: { ...config.mqtt!, cert: identity.certificateFile, key: identity.keyFile },
    'dm-server': {
      ...config['dm-server'],
      id: account.server,
      'client-secret': account.clientSecret,
      'server-secret': account.serverSecret,
    },
  };
  // The head-end shows a certificate where its answer was lost: see `BoardIdentity.isGone`.
  const surroundings = { ...machine, events, startAgain: resolve };
  const parts = composeGateway(quiet, surroundings);
  await using _gateway = new Gateway(quiet, surroundings, parts);
  const kind = marks.isTransfer ? 'transferred' : 'decommissioned';
  parts.reports.fault('departure', { kind, reason: `by order of ${account.server}` });
  parts.uplink.start(parts.uplinkListener);
  const timer = marks.isTransfer ? machine.clock.after(farewell, resolve) : undefined;
  try {
    await unlessAborted(promise, stop);
  } finally {
    timer?.cancel();
  }
}

/** Takes out of the state what was the former owner's, and reports all devices to the owner. */
async function arrive(config: GatewayConfig, machine: Machine): Promise<void> {
  const parts = composeGateway(config, machine);
  await using _gateway = new Gateway(config, machine, parts);
  const { associations, state } = parts;
  const { database } = state;
  withoutTraces(database, () =>
    associations.joinParent(() => {
      for (const rows of ofFormerOwner) database.prepare(`DELETE FROM ${rows}`).run();
    }),
  );
  await database.settled();
}

/** Accounts, rights, alerts and updates of LwM2M clients. What the former owner started ends at the next start, because it has no account any more. */
const ofFormerOwner = [
  "node WHERE path LIKE 'DMAcc/%'",
  'acl',
  'outbox',
  'undeliverable',
  'telemetry_report',
  'client_update',
  'client_setting',
];
