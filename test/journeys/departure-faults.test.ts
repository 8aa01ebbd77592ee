import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { DepartingBoard } from './departing-board.ts';
import { EnrolmentSite } from './enrolment-site.ts';

const allow = [{ gateway: 'gw-1' }];
const limit = { timeout: 120_000 };
const wiped = ['identity', 'identity/left'];

describe('a gateway departs whatever happens', () => {
  test(
    'by force while it is offline: it can do nothing, and wipes itself when it comes back',
    limit,
    async () => {
      await using site = await EnrolmentSite.open();
      const headend = await site.headend({ allow });
      await using board = await DepartingBoard.make(site);
      await board.start().until('mqtt.connected');
      await site.headendEvents.until('gateway.state', { gateway: 'gw-1', online: true });
      await board.kill();
      headend.enrolment!.leave('gw-1', 'ann', true);
      assert.equal(headend.enrolment!.departures.list(1)[0]?.state, 'done');
      await assert.rejects(headend.manage('gw-1', [{ name: 'Get', uri: './DevInfo' }]), { code: 'notFound' });
      const back = board.start();
      await back.until('departure.begun');
      await back.until('departure.left');
      assert.deepEqual(board.files, wiped);
      // It asks again by its claim, as a board would that ignores its mark: the list does not let it in.
      const other = site.board('gw-1');
      const stop = new AbortController();
      const asked = other.enrol(stop.signal);
      const { fields } = await other.events.until('enrolment.waiting');
      assert.equal(fields.reason, 'the board of gw-1 was decommissioned by ann');
      stop.abort();
      await assert.rejects(asked);
    },
  );

  test(
    'the order waits for it over a restart of the head-end; it is killed at each step',
    limit,
    async () => {
      await using site = await EnrolmentSite.open();
      const first = await site.headend({ allow });
      await using board = await DepartingBoard.make(site);
      await board.start().until('gateway.started');
      await board.kill();
      first.enrolment!.leave('gw-1', 'ann', false);
      first.enrolment!.leave('gw-1', 'bob', false);
      assert.deepEqual(
        first.enrolment!.departures.list(10).map(({ state, by }) => `${state} ${by}`),
        ['ordered bob', 'cancelled ann'],
      );
      await first[Symbol.asyncDispose]();
      const headend = await site.headend({ allow });
      for (const step of [
        'departure.begun',
        'state.new-epoch',
        'dm.session-started',
        'alert.delivered',
        'departure.left',
      ]) {
        const process = board.start();
        // The owner may know before this board has heard its answer.
        await Promise.race([process.until(step), process.until('departure.left')]);
        await board.kill();
      }
      await board.start().until('departure.left');
      assert.deepEqual(board.files, wiped);
      const [order] = headend.enrolment!.departures.list(1);
      assert.deepEqual([order?.state, order?.by], ['done', 'bob']);
      assert.equal(site.headendEvents.count('gateway.departed'), 1);
    },
  );

  test('an order that was taken back is not given', limit, async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend({ allow });
    await using board = await DepartingBoard.make(site);
    await board.start().until('gateway.started');
    await board.kill();
    const { departures } = headend.enrolment!;
    assert.throws(() => departures.cancel('gw-1', 'decommission'), { code: 'notFound' });
    headend.enrolment!.leave('gw-1', 'ann', false);
    assert.throws(() => departures.cancel('gw-1', 'transfer'), { code: 'notFound' });
    departures.cancel('gw-1', 'decommission');
    await board.start().until('mqtt.connected');
    const [get] = await headend.manage('gw-1', [{ name: 'Get', uri: './GwOwner/Problem' }]);
    assert.deepEqual([get?.status, get?.results[0]?.data ?? ''], [200, '']);
  });
});
