# Reference numbers of R's survival package for tests/survival: Rscript survival.R > survival.json, in this folder.
library(survival)
d <- read.csv("cohort.csv")
y <- Surv(d$time, d$event)
tight <- coxph.control(eps = 1e-14, toler.chol = 1e-15, iter.max = 100)
num <- function(v) paste0("[", paste(formatC(as.numeric(v), digits = 15, format = "g"), collapse = ", "), "]")
out <- c(sprintf('"r": "%s"', R.version.string), sprintf('"survival": "%s"', packageVersion("survival")))
add <- function(name, v) out <<- c(out, sprintf('"%s": %s', name, num(v)))
at <- c(0, 3, 6.5, 12, 20)
hazard <- function(fit) {
  s <- survfit(fit, newdata = data.frame(a = mean(d$a), b = mean(d$b), c = mean(d$c)))
  approx(s$time, s$cumhaz, at, method = "constant", rule = 2, yleft = 0)$y
}
add("at", at)
for (ties in c("efron", "breslow")) {
  fit <- coxph(y ~ a + b + c, d, ties = ties, control = tight)
  add(paste0(ties, "_coef"), coef(fit)); add(paste0(ties, "_se"), sqrt(diag(vcov(fit))))
  add(paste0(ties, "_loglik"), fit$loglik[2]); add(paste0(ties, "_hazard"), hazard(fit))
  s <- coxph(y ~ a + b + c + strata(site), d, ties = ties, control = tight)
  add(paste0(ties, "_strata_coef"), coef(s)); add(paste0(ties, "_strata_se"), sqrt(diag(vcov(s))))
  add(paste0(ties, "_strata_loglik"), s$loglik[2])
  w <- coxph(y ~ a + b + c, d, ties = ties, weights = d$weight, robust = FALSE, control = tight)
  add(paste0(ties, "_weight_coef"), coef(w)); add(paste0(ties, "_weight_se"), sqrt(diag(vcov(w))))
  add(paste0(ties, "_weight_loglik"), w$loglik[2])
  r <- coxph(y ~ ridge(a, b, c, theta = 5, scale = FALSE), d, ties = ties,
             control = coxph.control(eps = 1e-14, iter.max = 100, outer.max = 100))
  add(paste0(ties, "_ridge_coef"), coef(r))
}
km <- summary(survfit(y ~ 1, conf.type = "log-log"), times = at)
add("km", km$surv); add("km_low", km$lower); add("km_high", km$upper); add("km_at_risk", km$n.risk)
add("logrank", survdiff(y ~ site, d)$chisq)
add("harrell", concordance(y ~ d$a, reverse = TRUE)$concordance)
add("uno", concordance(y ~ d$a, reverse = TRUE, timewt = "n/G2")$concordance)
kinds <- factor(d$cause, 0:2, c("censored", "one", "two"))
aj <- summary(survfit(Surv(d$time, kinds) ~ 1), times = at)
add("incidence_one", aj$pstate[, 2]); add("incidence_two", aj$pstate[, 3])
cat("{\n ", paste(out, collapse = ",\n  "), "\n}\n", sep = "")
