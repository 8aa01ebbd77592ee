import type { Entropy } from '../../src/base/entropy.ts';
import { GatewayMode } from '../../src/mo/device-record.ts';
import {
  campaignAlert,
  deviceAttachAlert,
  deviceDetachAlert,
  devicePresenceAlert,
  gatewayFaultAlert,
} from '../../src/mo/gateway-alerts.ts';
import { ownVocabulary } from '../../src/mo/vocabulary.ts';
import { deviceId } from '../bench/crowd.ts';
import { type Attack, firstMessage, guess, int, repeatedly, request, type Target, xml } from './attacker.ts';
import { ChildParty } from './child-party.ts';
import { behind, honestChildren, hostileChild } from './deed.ts';
import type { Report } from './dm-party.ts';
import { KeyedParty } from './keyed-party.ts';

/** Alerts of one session, and sessions in a second. */
const together = 100;
const sessionRate = 10;
/** Packages in a second. */
const packageRate = 300;
/** Characters of an invented result. */
const resultLength = 20_000;

const about = { mode: GatewayMode.Transparent, bootstrap: 'local' } as const;

/** A device or gateway that is attached elsewhere: of the parent, behind another child, another child, the parent itself. */
function foreign(target: Target, chance: Entropy): string {
  const child = honestChildren[int(chance, honestChildren.length)]!;
  const kinds = [deviceId(int(chance, target.devices)), behind(child), child, 'gw-1', 'gw-2'];
  return kinds[Math.min(int(chance, 12), kinds.length - 1)]!;
}

/** What a child says that lies. */
function lie(target: Target, chance: Entropy, sequence: number): Report {
  const other = foreign(target, chance);
  const long = 'x'.repeat(128);
  const invented = `urn:dev:invented:${sequence}`;
  const attach = (deviceId: string, more: object = {}) =>
    deviceAttachAlert(ownVocabulary, { ...about, sequence, deviceId, ...more });
  const lies: readonly (() => Report)[] = [
    () => attach(other),
    () => attach(other, { isGateway: true, via: `gw-2/${invented}` }),
    () => deviceDetachAlert(ownVocabulary, { sequence, deviceId: other, reason: 'left' }),
    () =>
      devicePresenceAlert(ownVocabulary, {
        ...{ sequence, deviceId: other, state: 'unreachable', reason: long },
        lastSeen: Date.now(),
      }),
    () => attach(invented, { manufacturer: long, model: long }),
    () => attach(`${invented}:${long.slice(0, 60)}`, { isGateway: true }),
    () => gatewayFaultAlert(ownVocabulary, { sequence, kind: `problem`, reason: `${sequence} ${long}` }),
    () => gatewayFaultAlert(ownVocabulary, { sequence, kind: 'state', reason: invented, via: other }),
    () =>
      campaignAlert(
        ownVocabulary.alerts.CommandFanout,
        `./GwFanout/Fanout/${invented}`,
        `correlator-${sequence}`,
        'r'.repeat(sequence % 50 === 0 ? resultLength : 100),
      ),
  ];
  return lies[sequence % lies.length]!();
}

/** A package for the DM server in the name of somebody, through gateways that it did not come through. */
function misled(target: Target, chance: Entropy, round: number): Buffer {
  const device = round % 3 === 0 ? `urn:dev:invented:${round}` : foreign(target, chance);
  const ways = [hostileChild, 'gw-2', honestChildren[0]!, `gw-2/${hostileChild}`, `${hostileChild}/gw-1`];
  const payload = firstMessage(device, String(int(chance, 1e6)), 1, {
    credential: guess(chance),
    server: 'dm.example',
  });
  return request({
    path: 'dm/t/dm.example',
    query: [`id=${device}`, `via=${ways[round % ways.length]}`],
    options: [xml],
    payload,
  });
}

/** Attacks by a party that has proved itself. */
export const childAttacks: Readonly<Record<string, Attack>> = {
  'hostile-child': {
    what: `A child gateway with its own key over DTLS that lies: devices of its parent and of other children, ever new devices, ends, faults, and results of fan-outs that nobody ordered, ${together * sessionRate} alerts a second; ${packageRate} packages a second in the names of others and through others`,
    run: async (target, chance) => {
      const gateway = { host: target.host, port: target.coaps };
      const party = await KeyedParty.open(gateway, { address: target.multicast, port: 0 });
      const child = new ChildParty(hostileChild, party);
      let sequence = 0;
      await child.attach();
      const reports = repeatedly(sessionRate, async () => {
        const alerts = Array.from({ length: together }, () => lie(target, chance, ++sequence));
        // It was refused, or its association has ended: it comes back.
        await child.report(alerts).catch(() => child.attach().catch(() => {}));
      });
      const packages = repeatedly(packageRate, (round) => party.send(misled(target, chance, round)));
      await Promise.all([reports, packages]);
    },
  },
};
