import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OrderBranch } from '../../src/dm/order-branch.ts';

interface Order {
  readonly one?: string;
  readonly two?: string;
}

class Recorder extends OrderBranch<Order> {
  readonly done: string[] = [];

  write(order: Order): void {
    this.order(order);
  }

  get seen(): Order {
    return Object.assign({}, ...this.open);
  }

  protected override storing(order: Order): void {
    this.done.push(`stored ${JSON.stringify(order)}`);
  }

  protected override ordered(order: Order): void {
    this.done.push(`done ${JSON.stringify(order)}`);
  }
}

test('without a package an order takes effect at once', () => {
  const branch = new Recorder();
  branch.write({ one: 'a' });
  assert.deepEqual(branch.done, ['stored {"one":"a"}', 'done {"one":"a"}']);
});

test('in a package an order takes effect when that is stored, and is seen before', () => {
  const branch = new Recorder();
  branch.begin();
  branch.write({ one: 'a' });
  branch.begin();
  branch.write({ one: 'b', two: 'c' });
  branch.commit();
  assert.deepEqual([branch.seen, branch.done], [{ one: 'b', two: 'c' }, []]);
  branch.commit();
  assert.deepEqual(branch.done, ['stored {"one":"b","two":"c"}']);
  branch.committed();
  assert.deepEqual(branch.done.slice(1), ['done {"one":"b","two":"c"}']);
  branch.committed();
  assert.deepEqual(branch.done.slice(2), ['done {}']);
});

test('an Atomic that fails takes its own orders back, and no others', () => {
  const branch = new Recorder();
  branch.begin();
  branch.write({ one: 'a' });
  branch.begin();
  branch.write({ one: 'b', two: 'c' });
  branch.rollback();
  branch.commit();
  branch.committed();
  assert.deepEqual(branch.done, ['stored {"one":"a"}', 'done {"one":"a"}']);
});

test('a package that is not stored does nothing', () => {
  const branch = new Recorder();
  branch.begin();
  branch.write({ one: 'a' });
  branch.rollback();
  branch.write({ two: 'b' });
  assert.deepEqual(branch.done, ['stored {"two":"b"}', 'done {"two":"b"}']);
});
