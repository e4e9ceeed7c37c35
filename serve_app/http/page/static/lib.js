/** Preact, its hooks and htm, and states that several views need. */

import { AWAY_MS } from "./api.js";
import htm from "./vendor/htm.js";
import { useCallback, useEffect, useId, useMemo, useRef, useState } from "./vendor/hooks.js";
import { h, render } from "./vendor/preact.js";

export const html = htm.bind(h);
export {
  render,
  useCallback,
  useEffect,
  useId,
  useMemo,
  useRef,
  useState,
};

const kept = new Map();

/** A state under `name` that outlives the component, until the page is closed. */
export function useKept(name, initial) {
  const [value, setValue] = useState(kept.has(name) ? kept.get(name) : initial);
  const set = useCallback((next) => {
    kept.set(name, next);
    setValue(next);
  }, [name]);
  return [value, set];
}

/** Forget all kept states, because they belong to the tenant of another key. */
export function forgetKept() {
  kept.clear();
}

/**
 * Call `load(signal)` whenever `inputs` change, and every few seconds while the service is away.
 *
 * Returns `{data, error, loading, reload}`. The last data or error stays while newer data are loaded.
 */
export function useLoad(load, inputs) {
  const [state, setState] = useState({ loading: true });
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const control = new AbortController();
    let timer;
    setState((before) => ({ ...before, loading: true }));
    load(control.signal).then(
      (data) => control.signal.aborted || setState({ data, loading: false }),
      (error) => {
        if (control.signal.aborted) return;
        setState({ error, loading: false });
        if (error.isAway) timer = setTimeout(() => setTurn((before) => before + 1), AWAY_MS);
      },
    );
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [...inputs, turn]);
  const reload = useCallback(() => setTurn((before) => before + 1), []);
  return { ...state, reload };
}
