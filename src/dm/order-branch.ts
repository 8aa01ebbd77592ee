/**
 * Levels of changes of a branch whose nodes are orders and not values (`TreeBranch.begin`). What a package orders takes effect when
 * the package is stored: an Exec inside an Atomic that fails does nothing. Where no package is open it takes effect at once.
 */
export abstract class OrderBranch<Order extends object> {
  /** What each open level of changes orders. */
  readonly #levels: Order[] = [];
  #final = {} as Order;

  /** Called in the transaction of the package. */
  protected storing(_order: Order): void {}

  /** Called when the package is stored. */
  protected abstract ordered(order: Order): void;

  /** What the open levels order, the outermost first. */
  protected get open(): readonly Order[] {
    return this.#levels;
  }

  /** Adds to what is ordered. */
  protected order(part: Order): void {
    this.begin();
    Object.assign(this.#levels.at(-1)!, part);
    this.commit();
    if (this.#levels.length === 0) this.committed();
  }

  begin(): void {
    this.#levels.push({} as Order);
  }

  commit(): void {
    const level = this.#levels.pop() ?? ({} as Order);
    Object.assign(this.#levels.at(-1) ?? this.#final, level);
    if (this.#levels.length === 0) this.storing(level);
  }

  committed(): void {
    const order = this.#final;
    this.#final = {} as Order;
    this.ordered(order);
  }

  rollback(): void {
    this.#levels.pop();
  }
}
