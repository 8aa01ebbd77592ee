import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { startAedes } from '../peers/brokers.ts';
import { Site } from './site.ts';

const limit = { timeout: 60_000 };
const ids = ['urn:dev:ops:1', 'urn:dev:ops:2', 'urn:dev:ops:3'];

describe(
  'transparent mode for many devices: one order to the gateway gives the DM server a session with each device',
  limit,
  () => {
    // conforms: GW-17
    test('devices that answer are triggered at once, a sleeping one when it wakes, and all are in the result', async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const headend = await site.headend(ids);
      const gateway = await site.gateway([]);
      const start = async (id: string) => {
        const device = site.device(id, gateway, { server: true });
        await device.start();
        await device.attached;
      };
      for (const id of ids.slice(0, 2)) await start(id);
      for (const id of ids.slice(0, 2)) await site.headendEvents.until('alert.device-attach', { device: id });
      const started = await headend.trigger('gw-1', {
        name: 'morning',
        targets: {},
        returnFormat: 2,
        devices: ids,
        // Longer than a timer of Node: neither gateway nor DM server gives up at once.
        deadline: 25 * 24 * 60 * 60,
        operations: [
          { name: 'Replace', uri: './Settings/Label', data: 'awake' },
          { name: 'Get', uri: './Settings/Label' },
        ],
      });
      assert.equal(started.status, 202);
      for (const id of ids.slice(0, 2)) await site.headendEvents.until('session.ended', { device: id });
      await start(ids[2] ?? '');
      await site.headendEvents.until('alert.device-trigger', { correlator: started.correlator });
      const [{ result } = { result: '' }] = headend.records.results('DeviceTrigger');
      assert.match(
        result,
        /Total="3" Done="3" Failed="0" Pending="0"><Group Status="200" Commands="" Count="3">/,
      );
      while (headend.triggered('gw-1', 'morning')?.some(({ status }) => status === 0))
        await site.headendEvents.next('session.ended');
      assert.deepEqual(
        headend
          .triggered('gw-1', 'morning')
          ?.map(({ status, operations }) => [status, operations[1]?.results?.[0]?.data]),
        ids.map(() => [200, 'awake']),
      );
    });

    // conforms: GW-17, GW-20
    test('a device that does not answer ends with 408, devices without a Package #0 with 412; an empty group is accepted', async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const headend = await site.headend([]);
      await site.gateway([]);
      await headend.putGroup('gw-1', { id: 'night shift', devices: ids });
      await headend.putGroup('gw-1', { id: 'nobody', devices: [] });
      const at = './GwEdTrigger/Trigger/t';
      const outcomes = await headend.manage('gw-1', [
        { name: 'Add', uri: `${at}/Targets/GroupID`, data: 'night shift' },
        { name: 'Add', uri: `${at}/Deadline`, format: 'int', data: '1' },
        { name: 'Add', uri: `${at}/Notifications/a/DeviceID`, data: ids[0] ?? '' },
        { name: 'Add', uri: `${at}/Notifications/a/Pkg0`, format: 'bin', data: Buffer.alloc(40) },
        { name: 'Exec', uri: `${at}/Start`, correlator: 'c-1' },
        { name: 'Add', uri: `${at}2/Targets/GroupID`, data: 'nobody' },
        { name: 'Exec', uri: `${at}2/Start` },
      ]);
      assert.deepEqual(
        outcomes.map(({ status }) => status),
        [200, 200, 200, 200, 202, 200, 200],
      );
      await site.headendEvents.until('alert.device-trigger', { correlator: 'c-1' });
      const [{ result } = { result: '' }] = headend.records.results('DeviceTrigger');
      assert.equal(
        result,
        `<CampaignResult Total="3" Done="0" Failed="3" Pending="0"><Group Status="408" Commands="" Count="1"><Device ID="${ids[0]}"/></Group><Group Status="412" Commands="" Count="2"><Device ID="${ids[1]}"/><Device ID="${ids[2]}"/></Group></CampaignResult>`,
      );
    });
  },
);
