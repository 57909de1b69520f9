"""A hand-written Pong player that sees only pixels, and wins."""

import itertools

import numpy as np
from jaxtyping import UInt8

from collectors.screen import LEAST_LIGHT, SCREEN_HEIGHT, SCREEN_WIDTH, centre, crop, fold

NOOP, UP, DOWN = 0, 2, 3

# In the console's own pixels.
FIELD_TOP, FIELD_BOTTOM = 34, 194
LEFT_PADDLE_END, RIGHT_PADDLE_START, RIGHT_PADDLE_END = 20, 140, 144
PADDLE_HIGHEST, PADDLE_LOWEST = 38.0, 191.0
HIT_X = 141.0
BALL_HEIGHT = 4
BACKGROUND_RED, BACKGROUND_BLUE = 144, 17

# Measured: one step of stick moves the paddle by 7, then 12, 4 and 1 pixels; steps add up.
PULSE = (7, 12, 4, 1)
LOOKAHEAD = 8
PLANS = np.array(list(itertools.product((0, -1, 1), repeat=4)))
PULSES = np.array([np.pad(PULSE, (step, LOOKAHEAD))[:LOOKAHEAD] for step in range(4)])
GLIDES = np.array([np.pad(PULSE[age:], (0, LOOKAHEAD))[:LOOKAHEAD] for age in range(1, 5)])

AIM_RANGE = (6.0, 7.5)
FLIP_PROB = 0.05
FAR = 100.0


class PongPlayer:
    """Plays the right-hand paddle: predicts where the ball will cross its column and goes there.

    Needs frame skip 4 and max-pooling, as the recorder's defaults have them. Mean real return of
    the 8 whole games in 60,000 steps: +17.25 (worst +15), measured by
    `genie-gym collect ALE/Pong-v5 --out out/scripted --policy scripted --steps 60000 --seed 0`.
    """

    description = "scripted"

    def reset(self, rng: np.random.Generator) -> None:
        """Begin an episode; the generator draws where on the paddle to hit each ball."""
        self._rng = rng
        self._ball: tuple[float, float] | None = None
        self._paddle: float | None = None
        self._moves = np.zeros(len(PULSE))
        self._aim: float | None = None

    def act(self, obs: UInt8[np.ndarray, "H W C"]) -> int:
        """Return UP, DOWN or NOOP for a frame of any size."""
        ball, paddle = find_ball(obs), find_paddle(obs)
        last_ball, self._ball = self._ball, ball
        last_paddle, self._paddle = self._paddle, paddle
        if paddle is None or last_paddle is None:
            return NOOP
        self._infer_move(paddle - last_paddle)
        steps, target = self._crossing(ball, last_ball)
        return {-1: UP, 0: NOOP, 1: DOWN}[self._best_move(paddle, steps, target)]

    def _infer_move(self, shift: float) -> None:
        """Note which way the stick was held last: noise may have overruled what was asked for."""
        glide = self._moves[:-1] @ PULSE[1:]
        move = np.clip(np.rint((shift - glide) / PULSE[0]), -1, 1)
        self._moves = np.array([move, *self._moves[:-1]])

    def _crossing(
        self, ball: tuple[float, float] | None, last_ball: tuple[float, float] | None
    ) -> tuple[float, float]:
        """Return in how many steps the ball reaches the paddle, and where to be by then."""
        centre = (FIELD_TOP + FIELD_BOTTOM) / 2
        if ball is None or last_ball is None or ball[0] - last_ball[0] < 0.5:
            self._aim = None
            return FAR, centre
        if self._aim is None:
            # The paddle's end sends the ball steeply at the nearer wall, and often past the
            # opponent; now and then at the other, or the same rally could go on for ever.
            is_low = (ball[1] > centre) != (self._rng.random() < FLIP_PROB)
            self._aim = self._rng.uniform(*AIM_RANGE) * (-1.0 if is_low else 1.0)

        steps = (HIT_X - ball[0]) / (ball[0] - last_ball[0])
        y = reflect(ball[1] + steps * (ball[1] - last_ball[1]))
        return max(steps, 0.0), y + self._aim

    def _best_move(self, paddle: float, steps: float, target: float) -> int:
        """Return the first of the moves that bring the paddle nearest to the target in time."""
        shifts = self._moves @ GLIDES + PLANS @ PULSES
        paths = np.clip(paddle + shifts.cumsum(axis=1), PADDLE_HIGHEST, PADDLE_LOWEST)
        before = min(int(steps), LOOKAHEAD - 1)
        share = min(steps - before, 1.0)
        start = paths[:, before - 1] if before else paddle
        reached = (1 - share) * start + share * paths[:, before]
        # Among equals the calmest plan, and of those the one that moves first.
        cost = abs(reached - target) + 0.01 * abs(PLANS) @ np.arange(1, 5)
        return int(PLANS[cost.argmin(), 0])


def reflect(y: float) -> float:
    """Fold a straight path back into the field, as the walls would."""
    return fold(y, FIELD_TOP + BALL_HEIGHT / 2, FIELD_BOTTOM - BALL_HEIGHT / 2)


def find_ball(obs: UInt8[np.ndarray, "H W C"]) -> tuple[float, float] | None:
    """Return the ball's centre (x, y) in console pixels; None if it is not between the paddles.

    The ball is white, far bluer than the field; at smaller sizes its colour is spread over
    several pixels, whose weighted mean is its centre.
    """
    height, width = obs.shape[:2]
    top, bottom = crop(FIELD_TOP, FIELD_BOTTOM, height, SCREEN_HEIGHT)
    left, right = crop(LEFT_PADDLE_END, RIGHT_PADDLE_START, width, SCREEN_WIDTH)
    weight = obs[top:bottom, left:right, 2].astype(np.float32) - BACKGROUND_BLUE
    return centre(weight, top, left, height, width)


def find_paddle(obs: UInt8[np.ndarray, "H W C"]) -> float | None:
    """Return the y of the right paddle's centre in console pixels; None if it is not there.

    The paddle is less red than the field, and nothing else in its columns is.
    """
    height, width = obs.shape[:2]
    top, bottom = crop(FIELD_TOP, FIELD_BOTTOM, height, SCREEN_HEIGHT)
    left, right = crop(RIGHT_PADDLE_START, RIGHT_PADDLE_END, width, SCREEN_WIDTH)
    red = obs[top:bottom, left:right, 0].astype(np.float32)
    weight = np.clip(BACKGROUND_RED - red, 0, None).sum(axis=1)
    total = weight.sum()
    if total < LEAST_LIGHT:
        return None
    return float((weight @ np.arange(top, bottom) / total + 0.5) * SCREEN_HEIGHT / height)
